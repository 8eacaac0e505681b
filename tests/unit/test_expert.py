# SPDX-License-Identifier: Apache-2.0
"""The scripted expert on hand-written observations."""

from __future__ import annotations

import random

import pytest
from alfworld.gen.goal_library import gdict

from agent_system.environments.alfworld.expert import Expert, Exploration, Intent, parse_task
from agent_system.environments.alfworld.rooms import TOOLS, TaskKind
from agent_system.errors import TaskError
from agent_system.plan_execute.advice import Advice
from agent_system.plan_execute.protocol import parse_reply

START = "You are in the middle of a room. Looking quickly around you, you see a desk 1, and a drawer 1."


def expert(task: str, exploration: Exploration = Exploration.LISTED) -> Expert:
    return Expert(task, exploration, random.Random(0))


@pytest.mark.parametrize("kind", TaskKind)
def test_every_published_template_is_understood(kind):
    look = kind is TaskKind.LOOK_AT_IN_LIGHT
    expected = Intent(
        target="soapbar",
        count=2 if kind is TaskKind.PICK_TWO else 1,
        verb=TOOLS[kind].verb if kind in TOOLS else None,
        destination=None if look else "garbagecan",
        lamp="desklamp" if look else None,
    )
    for template in gdict[kind.value]["templates"]:
        assert parse_task(template.format(obj="soapbar", recep="garbagecan", toggle="desklamp")) == expected


def test_an_unknown_task_is_refused_with_its_text():
    with pytest.raises(TaskError, match="juggle three eggs"):
        parse_task("juggle three eggs")


def test_the_reply_of_an_advice_parses_without_problems():
    reply = parse_reply(Advice("SWITCH", "find mug", "go to desk 1").reply)
    assert reply.valid and (reply.switch, reply.subgoal, reply.action) == ("SWITCH", "find mug", "go to desk 1")


def test_it_walks_the_list_in_order_opens_what_is_closed_and_keeps_its_subgoal():
    player = expert("put a pen in desk")
    player.observe(START, ["go to desk 1", "go to drawer 1", "go to shelf 1", "inventory", "look"])
    assert player.advise("") == Advice("SWITCH", "find pen", "go to desk 1")
    player.observe("You arrive at desk 1. On the desk 1, you see nothing.", ["go to drawer 1", "go to shelf 1"])
    assert player.advise("find pen") == Advice("KEEP", "find pen", "go to drawer 1")
    player.observe("You arrive at drawer 1. The drawer 1 is closed.", ["go to desk 1", "open drawer 1"])
    assert player.advise("find pen").action == "open drawer 1"
    player.observe(
        "You open the drawer 1. The drawer 1 is open. In it, you see a book 1, and a pen 2.",
        ["close drawer 1", "go to desk 1", "go to shelf 1", "take book 1 from drawer 1", "take pen 2 from drawer 1"],
    )
    assert player.advise("find pen").action == "take pen 2 from drawer 1"


def test_random_exploration_never_searches_a_place_twice_before_it_has_searched_all():
    player = expert("put a pen in bed", Exploration.RANDOM)
    places = [f"shelf {n}" for n in range(1, 7)]
    player.observe(START, [f"go to {p}" for p in places])
    visited = []
    for _ in places:
        place = player.advise("find pen").action.removeprefix("go to ")
        visited.append(place)
        player.observe(
            f"You arrive at {place}. On the {place}, you see nothing.", [f"go to {p}" for p in places if p != place]
        )
    assert sorted(visited) == places


def test_the_subgoal_changes_with_the_phase_of_a_clean_task():
    player = expert("put a clean mug in desk")
    taken = "You pick up the mug 1 from the shelf 1."
    player.observe(taken, ["go to desk 1", "go to sinkbasin 1"])
    assert player.advise("find mug") == Advice("SWITCH", "clean mug", "go to sinkbasin 1")
    player.observe("You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.", ["clean mug 1 with sinkbasin 1"])
    assert player.advise("clean mug").action == "clean mug 1 with sinkbasin 1"
    player.observe("You clean the mug 1 using the sinkbasin 1.", ["go to desk 1", "go to shelf 1"])
    assert player.advise("clean mug") == Advice("SWITCH", "put mug in desk", "go to desk 1")
    player.observe("You arrive at desk 1. On the desk 1, you see nothing.", ["go to shelf 1", "move mug 1 to desk 1"])
    assert player.advise("put mug in desk") == Advice("KEEP", "put mug in desk", "move mug 1 to desk 1")


def test_cooling_undoes_heating():
    player = expert("heat some egg and put it in garbagecan")
    player.observe("You pick up the egg 1 from the shelf 1.", ["go to microwave 1"])
    player.observe("You heat the egg 1 using the microwave 1.", ["go to garbagecan 1"])
    assert player.advise("heat egg").subgoal == "put egg in garbagecan"
    player.observe("You cool the egg 1 using the fridge 1.", ["go to garbagecan 1", "go to microwave 1"])
    assert player.advise("put egg in garbagecan") == Advice("SWITCH", "heat egg", "go to microwave 1")


def test_an_untreated_object_in_the_right_place_is_taken_back():
    player = expert("heat some egg and put it in garbagecan")
    player.observe("You pick up the egg 1 from the shelf 1.", ["move egg 1 to garbagecan 1"])
    player.observe("You move the egg 1 to the garbagecan 1.", ["take egg 1 from garbagecan 1", "go to microwave 1"])
    assert player.advise("heat egg") == Advice("SWITCH", "find egg", "take egg 1 from garbagecan 1")


def test_a_hasty_player_forgets_the_treatment_until_it_was_missed():
    player = Expert("heat some egg and put it in garbagecan", Exploration.LISTED, random.Random(0), hasty=True)
    player.observe("You pick up the egg 1 from the shelf 1.", ["go to garbagecan 1", "go to microwave 1"])
    assert player.advise("find egg") == Advice("SWITCH", "put egg in garbagecan", "go to garbagecan 1")
    player.observe("You move the egg 1 to the garbagecan 1.", ["take egg 1 from garbagecan 1", "go to microwave 1"])
    assert player.advise("put egg in garbagecan") == Advice("SWITCH", "find egg", "take egg 1 from garbagecan 1")
    player.observe("You pick up the egg 1 from the garbagecan 1.", ["go to shelf 1", "go to microwave 1"])
    assert player.advise("find egg") == Advice("SWITCH", "heat egg", "go to microwave 1")


def test_putting_another_thing_or_another_place_does_not_remind_a_hasty_player():
    player = Expert("heat some egg and put it in garbagecan", Exploration.LISTED, random.Random(0), hasty=True)
    player.observe("You move the mug 1 to the garbagecan 1.", ["go to shelf 1"])
    player.observe("You move the egg 1 to the shelf 1.", ["go to microwave 1"])
    player.observe("You pick up the egg 1 from the shelf 1.", ["go to garbagecan 1", "go to microwave 1"])
    assert player.advise("find egg").subgoal == "put egg in garbagecan"


def test_a_wrong_object_in_hand_is_put_aside_where_it_fits_or_taken_back():
    player = expert("put a pen in desk")
    player.observe("You pick up the book 1 from the bed 1.", ["go to desk 1", "move book 1 to bed 1"])
    assert player.advise("find pen").action == "move book 1 to bed 1"
    player.observe("You arrive at toilet 1. On the toilet 1, you see nothing.", ["go to bed 1", "go to desk 1"])
    assert player.advise("find pen").action == "go to bed 1"


def test_two_objects_go_into_the_same_receptacle():
    player = expert("put two pen in drawer")
    player.observe("You pick up the pen 1 from the bed 1.", ["go to drawer 1", "go to drawer 2"])
    assert player.advise("find pen").subgoal == "put pen in drawer"
    player.observe("You move the pen 1 to the drawer 2.", ["go to bed 1", "go to drawer 1", "take pen 1 from drawer 2"])
    advice = player.advise("put pen in drawer")
    assert advice.subgoal == "find second pen" and advice.action != "take pen 1 from drawer 2"
    player.observe("You pick up the pen 2 from the bed 1.", ["go to drawer 1", "go to drawer 2"])
    assert player.advise("find second pen") == Advice("SWITCH", "put second pen in drawer", "go to drawer 2")


def test_it_goes_back_to_a_lamp_that_it_has_seen():
    player = expert("look at book under the desklamp")
    player.observe("You arrive at desk 1. On the desk 1, you see a desklamp 1.", ["go to bed 1", "use desklamp 1"])
    assert player.advise("").action == "go to bed 1"
    player.observe("You pick up the book 1 from the bed 1.", ["go to desk 1", "go to drawer 1"])
    assert player.advise("find book") == Advice("SWITCH", "use desklamp", "go to desk 1")
    player.observe("You arrive at desk 1. On the desk 1, you see a desklamp 1.", ["go to bed 1", "use desklamp 1"])
    assert player.advise("use desklamp").action == "use desklamp 1"


def test_games_of_alfworld_before_0_4_name_places_and_actions_differently():
    player = expert("put two pen in drawer")
    player.observe("You arrive at loc 3. The drawer 1 is closed.", ["go to desk 1", "open drawer 1"])
    assert player.advise("find pen").action == "open drawer 1"
    player.observe("You pick up the pen 1 from the desk 1.", ["go to drawer 1", "put pen 1 in/on desk 1"])
    assert player.advise("find pen").action == "go to drawer 1"
    player.observe("You arrive at loc 3. On the drawer 1, you see nothing.", ["put pen 1 in/on drawer 1"])
    assert player.advise("put pen in drawer").action == "put pen 1 in/on drawer 1"
    player.observe("You put the pen 1 in/on the drawer 1.", ["go to desk 1", "take pen 1 from drawer 1"])
    assert player.advise("put pen in drawer") == Advice("SWITCH", "find second pen", "go to desk 1")
    player.observe("You pick up the book 1 from the desk 1.", ["put book 1 in/on desk 1"])
    assert player.advise("find second pen").action == "put book 1 in/on desk 1"
    player.observe("You pick up the pen 2 from the desk 1.", ["put pen 2 in/on drawer 1", "put pen 2 in/on drawer 2"])
    assert player.advise("find second pen").action == "put pen 2 in/on drawer 1"


@pytest.mark.parametrize("form", ["move {} to {}", "put {} in/on {}"])
def test_it_puts_down_what_it_holds_and_nothing_with_a_longer_number(form):
    player = expert("put a pen in desk")
    player.observe("You pick up the pen 1 from the bed 1.", [form.format("pen 12", "desk 1"), "go to desk 1"])
    assert player.advise("find pen").action == "go to desk 1"


def test_nothing_happens_changes_nothing():
    player = expert("put a pen in desk")
    player.observe("You arrive at drawer 1. The drawer 1 is closed.", ["go to desk 1", "open drawer 1"])
    before = player.advise("find pen")
    player.observe("Nothing happens.", ["go to desk 1", "open drawer 1"])
    assert player.advise("find pen") == before


@pytest.mark.parametrize("kind", TaskKind)
def test_every_advised_subgoal_is_among_those_of_the_task(kind):
    template = gdict[kind.value]["templates"][0]
    player = expert(template.format(obj="mug", recep="shelf", toggle="desklamp"))
    observations = [
        "You pick up the mug 1 from the bed 1.",
        f"You {TOOLS[kind].verb if kind in TOOLS else 'clean'} the mug 1 using the fridge 1.",
        "You move the mug 1 to the shelf 1.",
        "You pick up the mug 2 from the bed 1.",
    ]
    for observation in observations:
        player.observe(observation, ["go to bed 1", "go to shelf 2"])
        assert player.advise("").subgoal in player.intent.subgoals
