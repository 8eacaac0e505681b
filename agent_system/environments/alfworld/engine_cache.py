# SPDX-License-Identifier: Apache-2.0
"""TextWorld's PDDL engine with its repeated work remembered: the same transcripts at a small part of the cost.

`CachedPddlEnv` is a subclass of `textworld.envs.pddl.PddlEnv`: the stock engine and this one run side by side in one
process. What is remembered, and why the result cannot differ:

- *Translation* (PDDL -> SAS) is a function of the game file. The stock engine runs it four times per game; here it runs
  once per game and process, and the second variant, which only `policy_commands` needs, runs on demand.
- *Text rules* are parsed once (`text_grammar`).
- *Commands*: the text of an operator depends on the entities' names and on the facts its template reads. Where no
  action can change those facts it is derived once per game; any other template is derived at every step.
- *Facts* that no action can change are kept once per game and shared by every environment that plays it (`game_model`).

The caches are bounded and hold nothing that an episode writes to. The engine's C library keeps the game in global
variables: each environment has its own copy of it, and the environments of a process must stay in one thread.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from functools import cache
from importlib import metadata

import fast_downward
import textworld.logic
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
from textworld.core import EnvInfos, Environment, GameState, Wrapper
from textworld.envs.pddl import PddlEnv
from textworld.envs.pddl import logic as pddl_logic
from textworld.generator.game import EntityInfo
from textworld.logic import Placeholder, Proposition, Rule, Signature, Variable

from agent_system.environments.alfworld.game_model import GameModel, Operator, game_model
from agent_system.environments.alfworld.native import acquire_planner_library, release_planner_library

PROVEN_VERSIONS: Mapping[str, str] = {"textworld": "1.7.0", "fast-downward-textworld": "20.6.4"}
"""The releases whose transcripts were compared with the stock engine's."""


def version_mismatches() -> list[str]:
    """Installed packages that are not the proven release, as sentences; empty if the cached engine may be used."""
    installed = {package: metadata.version(package) for package in PROVEN_VERSIONS}
    return [
        f"{package} {installed[package]} is installed, {proven} is the proven version"
        for package, proven in PROVEN_VERSIONS.items()
        if installed[package] != proven
    ]


@cache
def engine_class() -> type[PddlEnv]:
    """`CachedPddlEnv`, or the stock engine, with a warning, if the installed TextWorld is not the proven one."""
    mismatches = version_mismatches()
    if not mismatches:
        return CachedPddlEnv
    warnings.warn(
        f"the engine cache is off, so ALFWorld steps take many times longer: {'; '.join(mismatches)}. "
        f"Try: pip install {' '.join(f'{package}=={proven}' for package, proven in PROVEN_VERSIONS.items())}",
        RuntimeWarning,
        stacklevel=2,
    )
    return PddlEnv


def new_engine(infos: EnvInfos | None = None) -> Wrapper:
    """An engine for ALFWorld games, with entities under readable names (``drawer 1``). No expert, no shuffling."""
    return AlfredDemangler(engine_class()(infos), shuffle=False)


class CachedPddlEnv(PddlEnv):
    """`PddlEnv` on cached parts. Same arguments, same states, same errors."""

    def __init__(self, infos: EnvInfos | None = None) -> None:
        Environment.__init__(self, infos)
        self.downward_lib = acquire_planner_library()

    def load(self, filename_or_data: str | Mapping) -> None:
        if isinstance(filename_or_data, Mapping):
            data = filename_or_data
        else:
            with open(filename_or_data) as file:
                data = json.load(file)
        self.walkthrough = data.get("walkthrough")
        self._model = game_model(data["pddl_domain"], data["grammar"], data["pddl_problem"], self.downward_lib)
        self._logic = self._model.logic
        self._entity_infos = self._get_entity_infos()

    def reset(self) -> GameState:
        self._pddl_state = _State(self.downward_lib, self._model)
        self._operators = self._model.operators_for(_naming(self._entity_infos))
        self.prev_state = None
        self.state = GameState()
        self._last_action = None
        self._moves = 0
        self.state.feedback = self._logic.grammar.derive("#intro#", self._context({}))
        self.state.raw = self.state.feedback
        self._gather_infos()
        if "walkthrough" in self.request_infos.extras:
            self.state["extra.walkthrough"] = self.walkthrough or self._pddl_state.replan(self._entity_infos)
        return self.state

    def close(self) -> None:
        """Hands the planner library on. The engine cannot be used afterwards; closing twice is harmless."""
        library = self.__dict__.pop("downward_lib", None)
        if library is not None:
            release_planner_library(library)

    def _get_entity_infos(self) -> dict[str, EntityInfo]:
        infos = {}
        for variable in self._model.initial.variables:
            info = infos[variable.name] = EntityInfo(variable.name, variable.type)
            info.name, info.definite, info.indefinite = info.id, "the", "a"
        return infos

    def _context(self, mapping: Mapping[Placeholder, Variable]) -> dict:
        return {
            "state": self._pddl_state,
            "variables": {placeholder.name: self._entity_infos[v.name] for placeholder, v in mapping.items()},
            "mapping": mapping,
            "entity_infos": self._entity_infos,
        }

    def _gather_infos(self) -> None:
        state = self.state
        state["command_templates"] = self._model.command_templates
        state["won"] = self._pddl_state.check_goal()
        state["lost"] = False
        state["_entity_infos"] = dict(self._entity_infos)
        state["_facts"] = list(self._pddl_state.facts)
        if self.request_infos.facts:
            state["facts"] = list(map(self._get_human_readable_fact, state["_facts"]))
        state["last_action"] = None
        state["_last_action"] = self._last_action
        state["_valid_actions"] = []
        state["_valid_commands"] = []
        for action, command in self._applicable():
            state["_valid_actions"].append(action)
            state["_valid_commands"].append(command)
        state["admissible_commands"] = sorted(set(state["_valid_commands"]))
        if self.request_infos.moves:
            state["moves"] = self._moves
        if self.request_infos.policy_commands:
            state["policy_commands"] = self._pddl_state.replan(self._entity_infos)

    def _applicable(self) -> Iterator[tuple[textworld.logic.Action, str]]:
        """The actions of the current state with their commands, in the planner's order, one per operator name."""
        seen = set()
        for identifier, name in self._pddl_state.applicable_operators():
            operator = self._operators.get(identifier)
            if operator is None:
                operator = self._operators[identifier] = self._describe(identifier, name)
            if operator.name in seen:
                continue
            seen.add(operator.name)
            if operator.command is not None:
                yield operator.action, operator.command
            else:
                action = copy(operator.action)
                yield action, self._word(action)

    def _describe(self, identifier: int, name: str) -> Operator:
        verb, *arguments = name.split()
        described = self._logic.actions[verb]
        action = copy(self._model.signatures[verb].prototype)
        action.id = identifier
        action.mapping = self._model.bind(verb, arguments)
        action.command_template = described.template
        action.feedback_rule = described.feedback_rule
        command = self._word(action) if self._model.is_static(described.template) else None
        return Operator(name, action, command)

    def _word(self, action: textworld.logic.Action) -> str:
        """Replaces the action's template by its text in the current state; gives the command."""
        action.command_template = self._logic.grammar.derive(action.command_template, self._context(action.mapping))
        return action.format_command({key: info.name for key, info in self._entity_infos.items()})


class _State(pddl_logic.PddlState):
    """The facts of one episode. Starts from the model's; facts that cannot change are the model's own sets."""

    def __init__(self, library, model: GameModel) -> None:
        self._model = model
        self._logic = model.logic
        self._actions = model.signatures
        self.name2type = model.types
        self.downward_lib = library
        self.downward_lib.load_sas(zlib.decompress(model.sas))
        initial = model.initial
        self._facts = defaultdict(set)
        for signature, facts in initial._facts.items():
            self._facts[signature] = set(facts) if signature.name in model.fluents else facts
        # No action creates or removes an object, so these stay as they are.
        self._vars_by_name = initial._vars_by_name
        self._vars_by_type = initial._vars_by_type
        self._var_counts = initial._var_counts
        self._ordered: dict[Signature, tuple[Proposition, ...]] = {}
        self._effect_counts: dict[int, int] = {}

    def applicable_operators(self) -> Iterator[tuple[int, str]]:
        """Planner id and name of every applicable operator, in the planner's order."""
        operators = (fast_downward.Operator * self.downward_lib.get_applicable_operators_count())()
        self.downward_lib.get_applicable_operators(operators)
        self._effect_counts = {operator.id: operator.nb_effect_atoms for operator in operators}
        for operator in operators:
            yield operator.id, operator.name

    def apply(self, action: textworld.logic.Action) -> list[Proposition]:
        effects = (fast_downward.Atom * self._effect_counts[action.id])()
        self.downward_lib.apply_operator(action.id, effects)
        changes = []
        for effect in effects:
            fact, opposite = self._model.fact_and_opposite(effect.name)
            self._facts[opposite.signature].discard(opposite)
            self._facts[fact.signature].add(fact)
            self._ordered.pop(opposite.signature, None)
            self._ordered.pop(fact.signature, None)
            changes.append(fact)
        return changes

    def replan(self, infos: Mapping[str, EntityInfo]) -> list[str]:
        self.downward_lib.load_sas_replan(self._model.replanning_sas())
        return super().replan(infos)

    def _all_applicable_assignments(
        self,
        rule: Rule,
        mapping: dict[Placeholder, Variable],
        used_vars: set[Variable],
        new_phs_by_depth: list[list[Placeholder]],
        depth: int,
    ) -> Iterable[Mapping[Placeholder, Variable]]:
        """The stock search over sorted facts, with the sorting remembered."""
        if depth >= len(rule.preconditions):
            yield from self._all_assignments(new_phs_by_depth[depth], mapping, used_vars, False)
            return
        predicate = rule.preconditions[depth]
        for signature in self._signatures_below(predicate.signature):
            for fact in self._in_order(signature):
                for placeholder, variable in zip(predicate.parameters, fact.arguments, strict=False):
                    bound = mapping.get(placeholder)
                    if bound is None:
                        if variable in used_vars:
                            break
                        mapping[placeholder] = variable
                        used_vars.add(variable)
                    elif bound != variable:
                        break
                else:
                    yield from self._all_applicable_assignments(rule, mapping, used_vars, new_phs_by_depth, depth + 1)
                for placeholder in new_phs_by_depth[depth]:
                    used_vars.discard(mapping.pop(placeholder, None))

    def _signatures_below(self, signature: Signature) -> tuple[Signature, ...]:
        known = self._model.query_signatures
        if signature not in known:
            types = [self._logic.types.get(name) for name in signature.types]
            known[signature] = tuple(
                Signature(signature.name, [type_.name for type_ in subtypes])
                for subtypes in self._logic.types.multi_subtypes(types)
            )
        return known[signature]

    def _in_order(self, signature: Signature) -> tuple[Proposition, ...]:
        changes = signature.name.removeprefix("not_") in self._model.fluents
        known = self._ordered if changes else self._model.ordered_facts
        if signature not in known:
            facts = self.facts_with_signature(signature)
            known[signature] = tuple(sorted(facts, key=lambda f: (f.name, [(v.name, v.type) for v in f.arguments])))
        return known[signature]


def _naming(infos: Mapping[str, EntityInfo]) -> tuple:
    """Everything about the entities that a text rule could read."""
    return tuple(tuple(str(getattr(info, slot)) for slot in EntityInfo.__slots__) for info in infos.values())
