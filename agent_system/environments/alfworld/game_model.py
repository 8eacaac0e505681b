# SPDX-License-Identifier: Apache-2.0
"""What a TextWorld PDDL game is before anyone plays it: translated once, shared by all environments of a process."""

from __future__ import annotations

import contextlib
import gc
import json
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import fast_downward
import textworld.logic
from fast_downward.interface import pddl2sas
from textworld.envs.pddl import logic as pddl_logic
from textworld.envs.pddl.logic.model import ActionGrammarNode, ActionTypeNode
from textworld.logic import Placeholder, Proposition, Signature, State, Variable

from agent_system.environments.alfworld.native import process_state_kept
from agent_system.environments.alfworld.text_grammar import MemoGrammar

MODEL_CACHE_SIZE = 64
"""Translated games kept per process, least recently used out first. About 0.7 MB each for published games."""
_UNREACHABLE = "Atom dummy(val"
"""What the translator writes in place of a game that has no solution even if actions deleted nothing."""


@dataclass(frozen=True)
class ActionSignature:
    """A PDDL action before its parameters are filled in.

    Args:
        parameters: the planner's own, in order; each has ``name`` (``?o``) and ``type_name``.
        placeholders: TextWorld's form of the same.
        prototype: an action without mapping, to be copied: copies share what is empty in all of them.
    """

    parameters: tuple[Any, ...]
    placeholders: tuple[Placeholder, ...]
    prototype: textworld.logic.Action

    @classmethod
    def of(cls, action: Any) -> ActionSignature:
        placeholders = tuple(Placeholder(p.name.strip("?"), p.type_name) for p in action.parameters)
        return cls(tuple(action.parameters), placeholders, textworld.logic.Action(action.name, [], []))


@dataclass
class Operator:
    """One grounded action.

    Args:
        name: PDDL action and arguments. Several operators of the planner may share it.
        action: what TextWorld passes around; shared between environments and never written to.
        command: the text that triggers it, or None if it has to be derived in every state.
    """

    name: str
    action: textworld.logic.Action
    command: str | None


@dataclass
class GameModel:
    """One game, translated. Everything is read-only except the memos, which only ever gain derivable entries.

    Args:
        logic: text rules and type hierarchy.
        sas: the planner's task, zlib-compressed (20 KB instead of 500 KB).
        signatures: by PDDL action name.
        types: of the objects, by object name.
        fluents: names of the predicates that some action changes.
        initial: the facts at reset, with TextWorld's own bookkeeping of variables.
        pddl: domain and problem, compressed JSON, for the second translation.
        operators: memo of grounded actions by planner id, one table per naming of the entities.
        facts: memo of the planner's atoms: the fact and its negation, by atom text.
        ordered_facts: memo of the facts no action changes, in the order in which queries visit them.
        query_signatures: memo of the signatures that match a predicate once subtypes are counted.
        variables: one object per name and type, shared by the operators.
    """

    logic: pddl_logic.GameLogic
    sas: bytes
    signatures: Mapping[str, ActionSignature]
    types: Mapping[str, str]
    fluents: frozenset[str]
    initial: State
    pddl: bytes
    operators: dict[tuple, dict[int, Operator]] = field(default_factory=dict)
    facts: dict[str, tuple[Proposition, Proposition]] = field(default_factory=dict)
    ordered_facts: dict[Signature, tuple[Proposition, ...]] = field(default_factory=dict)
    query_signatures: dict[Signature, tuple[Signature, ...]] = field(default_factory=dict)
    variables: dict[tuple[str, str], Variable] = field(default_factory=dict)
    _replanning_sas: bytes | None = None

    @property
    def command_templates(self) -> list[str]:
        return sorted({action.template for action in self.logic.actions.values()})

    def operators_for(self, naming: tuple) -> dict[int, Operator]:
        """The operator memo that belongs to this naming of the entities. Only the latest two namings are kept."""
        if naming not in self.operators:
            while len(self.operators) >= 2:
                del self.operators[next(iter(self.operators))]
            self.operators[naming] = {}
        return self.operators[naming]

    def bind(self, verb: str, arguments: Sequence[str]) -> dict[Placeholder, Variable]:
        """The parameters of an action with their values."""
        placeholders = self.signatures[verb].placeholders
        return {
            placeholder: self.variables.setdefault((name, placeholder.type), Variable(name, placeholder.type))
            for placeholder, name in zip(placeholders, arguments, strict=False)
        }

    def is_static(self, template: str) -> bool:
        """Whether no action can change the text of `template`."""
        return self.logic.grammar.predicates_read(template).isdisjoint(self.fluents)

    def fact_and_opposite(self, atom: str) -> tuple[Proposition, Proposition]:
        if atom not in self.facts:
            fact = proposition_of_atom(atom, self.types)
            name = fact.name.removeprefix("not_") if fact.is_negation else f"not_{fact.name}"
            self.facts[atom] = fact, proposition(name, fact.arguments)
        return self.facts[atom]

    def replanning_sas(self) -> bytes:
        """The translation TextWorld plans with: pruned, unlike the one it plays with."""
        if self._replanning_sas is None:
            domain, problem = json.loads(zlib.decompress(self.pddl))
            self._replanning_sas = zlib.compress(_translate(domain, problem, optimize=True)[1].encode("utf-8"))
        return zlib.decompress(self._replanning_sas)


def proposition(name: str, arguments: Sequence[Variable]) -> Proposition:
    """A fact, without TextWorld's global table of all facts ever made: that table never forgets a game."""
    return type.__call__(Proposition, name, arguments)


def proposition_of_atom(atom: str, types: Mapping[str, str]) -> Proposition:
    """The fact in an atom of the planner, such as ``NegatedAtom opened(drawer_1)``."""
    kind, rest = atom.split(" ", 1)
    name, arguments = rest.split("(", 1)
    # TextWorld writes the variables "i" and "p" (inventory, player) in capitals.
    variables = [
        Variable(argument.upper() if argument.lower() in ("i", "p") else argument, types[argument])
        for argument in arguments[:-1].split(", ")
        if argument
    ]
    return proposition(f"not_{name}" if kind == "NegatedAtom" else name, variables)


_models: OrderedDict[bytes, GameModel] = OrderedDict()


def game_model(domain: str, grammar: str, problem: str, library: Any) -> GameModel:
    """The model of a game, from the cache if this process has met it.

    Args:
        domain, grammar, problem: the texts of a ``.tw-pddl`` file.
        library: a planner library, used to read the initial state; its current game is replaced.

    Raises:
        Exception, SystemExit: whatever the parsers raise on malformed text.
    """
    key = sha256(json.dumps([domain, grammar, problem]).encode()).digest()
    if key not in _models:
        with _collector_paused():
            _models[key] = _build(domain, grammar, problem, library)
        while len(_models) > MODEL_CACHE_SIZE:
            _models.popitem(last=False)
    _models.move_to_end(key)
    return _models[key]


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """The translator makes a million short-lived objects; walking them again and again costs a quarter of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _build(domain: str, grammar: str, problem: str, library: Any) -> GameModel:
    logic = _parse_logic(domain, grammar)
    task, sas = _translate(domain, problem, optimize=False)
    for declared in task.types:
        if declared.name not in logic.types._types:  # PDDL's own "object" may be declared again: the first one counts
            logic.types.add(textworld.logic.Type(declared.name, declared.supertype_names))
    types = {thing.name: thing.type_name for thing in task.objects}
    fluents = {effect.literal.predicate for action in task.actions for effect in action.effects}
    fluents |= {axiom.name for axiom in task.axioms}

    library.load_sas(sas.encode("utf-8"))
    atoms = (fast_downward.Atom * library.get_state_size())()
    library.get_state(atoms)
    if any(atom.name.startswith(_UNREACHABLE) for atom in atoms):
        raise ValueError("its goal cannot be reached")
    facts = [fact for atom in task.init if (fact := _initial_fact(atom, types)) is not None]
    dynamic = (proposition_of_atom(atom.name, types) for atom in atoms)
    initial = _empty_state(logic)
    initial.add_facts(facts)
    initial.add_facts(fact for fact in dynamic if not fact.is_negation)
    return GameModel(
        logic=logic,
        sas=zlib.compress(sas.encode("utf-8")),
        signatures={action.name: ActionSignature.of(action) for action in task.actions},
        types=types,
        fluents=frozenset(fluents),
        initial=initial,
        pddl=zlib.compress(json.dumps([domain, problem]).encode()),
    )


def _translate(domain: str, problem: str, *, optimize: bool) -> tuple[Any, str]:
    with process_state_kept():
        return pddl2sas(domain, problem, optimize=optimize)


def _parse_logic(domain: str, grammar: str) -> pddl_logic.GameLogic:
    """`GameLogic(domain, grammar)` on `MemoGrammar`."""
    logic = pddl_logic.GameLogic(domain, "")
    rules: dict[str, Any] = {}
    converter = pddl_logic._ModelConverter()
    for part in pddl_logic._PARSER.parse(grammar, rule_name="pddlStart").parts:
        if isinstance(part, ActionTypeNode):
            action = converter.walk(part)
            logic.actions[action.name.lower()] = action
            lines = action.grammar.split("\n")
            rules.update(json.loads("\n".join(line for line in lines if not line.lstrip().startswith("#"))))
        elif isinstance(part, ActionGrammarNode):
            rules.update(json.loads(converter._unescape_block(part.code)))
    logic.grammar = MemoGrammar.from_rules(rules)
    return logic


def _initial_fact(atom: Any, types: Mapping[str, str]) -> Proposition | None:
    """A fact of the problem's ``:init``; None for what TextWorld leaves out (equality, costs, distances)."""
    pddl = fast_downward.translate.pddl
    if isinstance(atom, pddl.conditions.Atom):
        if atom.predicate == "=":
            return None
        return proposition(atom.predicate, [Variable(name, types[name]) for name in atom.args])
    if isinstance(atom, pddl.f_expression.Assign):
        name = str(atom.expression.value)
        if atom.fluent.symbol == "total-cost" or name.isdigit():
            return None
        return proposition(name, [Variable(argument, types[argument]) for argument in atom.fluent.args])
    return None


def _empty_state(logic: pddl_logic.GameLogic) -> State:
    """A TextWorld state without facts. Its constructor accepts only the logic of the Inform 7 games."""
    state = State.__new__(State)
    state._logic = logic
    state._facts = defaultdict(set)
    state._vars_by_name = {}
    state._vars_by_type = defaultdict(set)
    state._var_counts = Counter()
    return state
