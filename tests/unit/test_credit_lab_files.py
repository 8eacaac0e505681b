# SPDX-License-Identifier: Apache-2.0
"""Episode files as the credit lab reads them: what a run writes comes back, and what does not fit is named."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from made_episodes import line, write
from made_turns import batch_turns, keep, turn

from agent_system.errors import ConfigError
from recipe.hiper.credit_lab.episodes import CREDIT_FIELDS, read_episodes
from recipe.hiper.credit_lab.estimators import LabConfig, run_estimators
from recipe.hiper.credit_lab.statistics import recorded_note
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import EstimatorConfig, TurnGrids, estimate_advantages
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.run_dir.recorder import RunRecorder
from recipe.hiper.trainer.episode_records import episode_records
from recipe.hiper.trainer.token_credit import BatchCredit
from recipe.hiper.trainer.turn_batch import turn_grids

HAE = HAEConfig(gamma=0.9, lam_turn=0.8, lam_seg=0.7)


def written_by_a_run(folder, has_critic: bool = True):
    """Two episodes of a group and one of another, as the trainer would write them. The grids, and the file."""
    rows = [
        ("x-1_0", turn(0, observation="hall")),
        ("x-1_0", keep(1, observation="cellar", reward=10.0, terminated=True, won=True, stop="won")),
        ("x-1_1", turn(0, observation="hall")),
        ("x-1_1", keep(1, observation="attic", problems=("missing_switch",), admissible=False, copied_exactly=False)),
        ("x-1_1", turn(2, observation="hall", truncated=True, stop="step_limit")),
        ("x-2_0", turn(0, observation="hall", terminated=True, stop="failed")),
    ]
    turns = batch_turns(rows)
    values = torch.arange(18.0).reshape(6, 3) / 7 if has_critic else None
    beta = torch.linspace(0.1, 0.6, 6)
    grids = turn_grids(turns, values, beta, False)
    shaping = ShapingConfig(invalid_action_penalty_coef=0.1, keep_penalty=-0.3)
    result = estimate_advantages(grids, EstimatorConfig("hae" if has_critic else "rloo", HAE, shaping))
    nothing = torch.zeros(6, 1)
    credit = BatchCredit(
        turn_advantages=result,
        is_hierarchical=has_critic,
        values=values,
        token_advantages=nothing,
        credit_mask=nothing,
        value_targets=nothing,
        value_mask=nothing,
        switch_probability=beta,
    )
    RunRecorder(folder, total_steps=1, checkpoint_bytes=1, episodes_every=1).write_episodes(
        "train", 1, episode_records(1, turns, credit)
    )
    return grids, result, folder / "episodes" / "train_000001.jsonl"


def test_what_a_run_wrote_comes_back(tmp_path):
    grids, result, path = written_by_a_run(tmp_path)
    episodes = read_episodes([path])
    for field in fields(TurnGrids):
        if field.name not in ("rewards", "bootstrap"):
            expected = getattr(grids, field.name)
            torch.testing.assert_close(getattr(episodes.turns, field.name).to(expected.dtype), expected, msg=field.name)
    torch.testing.assert_close(episodes.turns.rewards.float(), result.shaped.rewards)
    torch.testing.assert_close(episodes.environment_rewards.float(), grids.rewards)
    assert episodes.won.tolist() == [True, False, False]
    assert episodes.group_sizes == [2, 1] and episodes.cut == 1
    assert episodes.is_hierarchical and episodes.is_shaped and not episodes.has_one_head
    assert episodes.without_values == episodes.without_probability == ""


def test_the_advantages_of_the_run_are_recognised(tmp_path):
    """The lab recomputes, from the file alone, what the trainer computed from the batch."""
    episodes = read_episodes([written_by_a_run(tmp_path)[2]])
    same = LabConfig(gamma=0.9, lam=0.8, lam_seg=0.7)
    result = recorded_note(episodes, run_estimators(episodes, same)[0])
    assert "recorded the advantages of hae (segment return)" in result
    other = LabConfig(gamma=0.9, lam=0.8, lam_seg=1.0)
    assert "none of these" in recorded_note(episodes, run_estimators(episodes, other)[0])


def test_a_run_without_critic(tmp_path):
    episodes = read_episodes([written_by_a_run(tmp_path, has_critic=False)[2]])
    assert episodes.turns.values is None
    assert "train_000001.jsonl, line 1: the run had no critic" in episodes.without_values
    assert "recorded the advantages of rloo" in recorded_note(episodes, run_estimators(episodes, LabConfig())[0])


def test_validation_has_the_rewards_of_the_environment(tmp_path):
    episodes = read_episodes([write(tmp_path / "val.jsonl", [line("a_0", [0.0, 10.0], credit=False)])])
    assert not episodes.is_shaped and episodes.recorded is None and episodes.turns.values is None
    assert episodes.turns.rewards.tolist() == [[0.0, 10.0]]
    assert "validation" in episodes.without_values and "validation" in episodes.without_probability


def test_a_critic_with_one_head(tmp_path):
    """High and term are read at the same token, low at another."""
    path = write(tmp_path / "one.jsonl", [line("a_0", [1.0, 2.0], values=[(1.0, 3.0, 1.0), (2.0, 2.0, 2.0)])])
    assert read_episodes([path]).has_one_head
    untrained = write(tmp_path / "new.jsonl", [line("a_0", [1.0, 2.0])])
    assert not read_episodes([untrained]).has_one_head


def test_a_flat_agent(tmp_path):
    path = write(tmp_path / "flat.jsonl", [line("a_0", [0.0, 1.0], switch="", subgoal="")])
    assert not read_episodes([path]).is_hierarchical


def test_equal_names_in_two_files_are_two_groups(tmp_path):
    paths = [write(tmp_path / name, [line("a_0", [1.0]), line("a_1", [1.0])]) for name in ("x.jsonl", "y.jsonl")]
    episodes = read_episodes(paths)
    assert episodes.files == 2 and episodes.group_sizes == [2, 2]


def test_a_file_from_before_cut_replies_were_marked(tmp_path):
    episode = line("a_0", [1.0])
    assert episode["trajectory"][0].pop("cut") is False
    assert len(read_episodes([write(tmp_path / "old.jsonl", [episode])]).won) == 1


def test_blank_lines_and_odd_characters(tmp_path):
    """U+2028 ends a line for Python's splitlines, and not in a file of JSON lines."""
    text = line("a_0", [1.0], reply="one\u2028two")
    path = write(tmp_path / "odd.jsonl", [text, "", line("b_0", [1.0])])
    assert len(read_episodes([path]).won) == 2


# ---------------------------------------------------------------------------------------------------------------------
# Errors


def changed(drop: str = "", **values):
    """An episode whose last turn lacks a field or has other values."""
    episode = line("a_0", [0.0, 1.0])
    episode["trajectory"][-1] |= values
    episode["trajectory"][-1].pop(drop, None)
    return episode


VALUES = {"high": 1.0, "low": 1.0, "term": 1.0}
BROKEN = {
    "not JSON": (["{"], "line 1 is not JSON"),
    "no object": (["[1]"], "line 1 is no JSON object"),
    "no episode": ([""], "holds no episode"),
    "no session": ([{k: v for k, v in line("a_0", [1.0]).items() if k != "session"}], 'no field "session"'),
    "no turns": ([line("a_0", [1.0]) | {"trajectory": []}], "has no turns"),
    "turns are no list": ([line("a_0", [1.0]) | {"trajectory": 3}], '"trajectory" is 3 and not a list'),
    "turn is no object": ([line("a_0", [1.0]) | {"trajectory": [3]}], "line 1, turn 0 is no JSON object"),
    "an older version": ([line("b_0", [1.0]), changed(drop="comparable")], 'line 2, turn 1 has no field "comparable"'),
    "a newer version": ([changed(mood=1)], 'turn 1 has the field "mood", which this version does not know'),
    "half of the credit": ([changed(drop="advantages")], 'turn 1 has no field "advantages"'),
    "no term value": ([changed(values={"high": 1.0, "low": 1.0})], 'turn 1, "values" has no field "term"'),
    "reward is text": ([changed(reward="10")], '"reward" is "10" and not a number'),
    "reward is not finite": ([changed(reward=float("nan"))], '"reward" is NaN and not a number'),
    "reward is no ordinary number": ([changed(reward=10**400)], '"reward" is 1000'),
    "mark is a number": ([changed(boundary=1)], '"boundary" is 1 and not true or false'),
    "value is text": ([changed(values=VALUES | {"low": "x"})], '"low" is "x" and not a number'),
    "a turn is missing": ([changed(turn=2)], 'turn 1 has "turn": 2; one is missing'),
    "an episode twice": ([line("a_0", [1.0]), line("a_0", [1.0])], "line 2: the episode a_0 is in the file twice"),
    "credit in some": ([line("a_0", [1.0]), line("b_0", [1.0], credit=False)], "line 2 has not"),
    "two kinds of agent": ([line("a_0", [1.0]), line("b_0", [1.0], switch="")], "a plan-execute agent"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_named(tmp_path, name):
    lines, message = BROKEN[name]
    path = write(tmp_path / "broken.jsonl", lines)
    with pytest.raises(ConfigError) as error:
        read_episodes([path])
    assert message in str(error.value) and "broken.jsonl" in str(error.value)


def test_another_version_says_what_would_write_the_field(tmp_path):
    path = write(tmp_path / "old.jsonl", [changed(drop="comparable")])
    with pytest.raises(ConfigError, match=r"another version of HiPER.*<run_dir>/episodes/train_"):
        read_episodes([path])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"missing.jsonl cannot be read: No such file.*Try: episode files of a run"):
        read_episodes([tmp_path / "missing.jsonl"])
    with pytest.raises(ConfigError, match=r"is a folder. Try: the files in it, .*train_\*"):
        read_episodes([tmp_path])
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"picture.png cannot be read"):
        read_episodes([tmp_path / "picture.png"])
    path = write(tmp_path / "x.jsonl", [line("a_0", [1.0])])
    with pytest.raises(ConfigError, match="named twice"):
        read_episodes([path, tmp_path / ".." / tmp_path.name / "x.jsonl"])


def test_the_fields_of_credit_are_those_of_the_recorder(tmp_path):
    """A field that the recorder learns and the lab does not would make every new file an unknown version."""
    path = written_by_a_run(tmp_path)[2]
    assert all(f'"{name}"' in path.read_text() for name in CREDIT_FIELDS)
