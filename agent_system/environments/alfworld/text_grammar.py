# SPDX-License-Identifier: Apache-2.0
"""TextWorld's text grammar, read once and expanded without copying.

A TextWorld PDDL game generates all its text, feedback and commands alike, with a context-sensitive grammar. The
stock `ContextSensitiveGrammar` parses the same short strings again for every sentence and deep-copies every symbol with
its whole context; that is almost all of the cost of a step. The grammar here gives the same text from the same
rules: parsed strings are remembered, and symbols are never written to, so that nothing has to be copied.

A *context* is the mapping TextWorld passes around: ``state`` (facts), ``variables`` (names visible to expressions),
``mapping`` (placeholder -> variable) and ``entity_infos``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

from textworld.envs.pddl import textgen
from textworld.logic import Rule

PARSE_CACHE_SIZE = 4096
"""Strings kept parsed. A game uses about a hundred, nearly all of them shared by every ALFWorld game."""

Context = Mapping[str, Any]


@lru_cache(PARSE_CACHE_SIZE)
def parse_symbols(text: str) -> tuple[textgen.Symbol, ...]:
    """The symbols of a grammar string. They are shared: never write to them."""
    return tuple(textgen._parse_and_convert(text, rule_name="symbols"))


@lru_cache(PARSE_CACHE_SIZE)
def parse_query(expression: str) -> Rule:
    """A condition such as ``openable(r:receptacle) & opened(r:receptacle)`` as a rule without effects."""
    return Rule.parse_conjunctive_query(expression)


@lru_cache(PARSE_CACHE_SIZE)
def _compile(expression: str) -> CodeType:
    return compile(expression.strip(), "<text grammar>", "eval")


def _evaluate(expression: str, context: Context) -> str:
    """The stock grammar evaluates expressions in its own module with the variables as locals; so does this."""
    return str(eval(_compile(expression), vars(textgen), dict(context["variables"])))


def _query(expression: str, context: Context) -> list[Context]:
    """One context for each way in which the facts meet the condition, in the engine's order."""
    entity_infos = context["entity_infos"]
    contexts: list[Context] = []
    for mapping in context["state"].all_assignments(parse_query(expression), context["mapping"]):
        named = {placeholder.name: entity_infos[variable.name] for placeholder, variable in mapping.items()}
        contexts.append(
            {
                **context,
                "variables": {**context["variables"], **named},
                "mapping": {**context["mapping"], **mapping},
            }
        )
    return contexts


class MemoGrammar(textgen.ContextSensitiveGrammar):
    """Drop-in for the stock grammar: same rules in, same text out. Raises what the stock grammar raises."""

    @classmethod
    def from_rules(cls, rules: Mapping[str, Iterable[Mapping[str, Any]]]) -> MemoGrammar:
        """Builds the grammar from decoded JSON: ``{name: [{"rhs": str, "condition": str}, ...]}``."""
        grammar = cls()
        for name, alternatives in rules.items():
            for rule in alternatives:
                rhs, weight, condition = rule["rhs"], rule.get("weight", 1), rule.get("condition", "")
                grammar.add_rule(textgen.ProductionRule(name, parse_symbols(rhs), weight, condition))
        return grammar

    def derive(self, start: str, context: Context) -> str:
        """Expands `start` depth first, left to right."""
        pieces: list[str] = []
        pending = [(symbol, context) for symbol in reversed(parse_symbols(start))]
        while pending:
            symbol, here = pending.pop()
            if isinstance(symbol, textgen.TerminalSymbol):
                pieces.append(str(symbol))
            elif isinstance(symbol, textgen.EvalSymbol):
                pieces.append(_evaluate(symbol.expression, here))
            elif isinstance(symbol, textgen.NonterminalSymbol):
                pending.extend((part, here) for part in reversed(self._choose(symbol, here).rhs))
            elif isinstance(symbol, textgen.ListSymbol):
                pending.extend(reversed(self._as_list(self._expand_condition(symbol.symbol, here), here)))
            else:
                pending.extend(reversed(self._expand_condition(symbol, here)))
        return "".join(pieces)

    def predicates_read(self, start: str) -> frozenset[str]:
        """Names of the facts that the text of `start` can depend on, ``not_`` stripped.

        Raises:
            textgen.CSGUnknownSymbolError: `start` leads to a symbol that the grammar does not define.
        """
        names: set[str] = set()
        seen: set[str] = set()
        pending = list(parse_symbols(start))
        while pending:
            symbol = pending.pop()
            if isinstance(symbol, textgen.ListSymbol):
                pending.append(symbol.symbol)
                pending.extend(map(textgen.NonterminalSymbol, ("list_empty", "list_separator", "list_last_separator")))
            elif isinstance(symbol, textgen.ConditionalSymbol):
                pending.append(symbol.expression)
                names |= _predicates(symbol.given)
            elif isinstance(symbol, textgen.NonterminalSymbol) and symbol.symbol not in seen:
                seen.add(symbol.symbol)
                for rule in self._alternatives(symbol):
                    names |= _predicates(rule.condition)
                    pending.extend(rule.rhs)
        return frozenset(names)

    def _alternatives(self, symbol: textgen.Symbol) -> list[textgen.ProductionRule]:
        rules = self._rules.get(str(symbol))
        if not rules:
            raise textgen.CSGUnknownSymbolError(symbol)
        return rules

    def _choose(self, symbol: textgen.Symbol, context: Context) -> textgen.ProductionRule:
        """The first rule whose condition holds. IndexError, like the stock grammar's, when there is none."""
        for rule in self._alternatives(symbol):
            if not rule.condition:
                return rule
            assignments = context["state"].all_assignments(parse_query(rule.condition), context["mapping"])
            if next(iter(assignments), None) is not None:
                return rule
        raise IndexError(f"no rule for '#{symbol}#' applies")

    @staticmethod
    def _expand_condition(symbol: textgen.ConditionalSymbol, context: Context) -> list[tuple[Any, Context]]:
        contexts = _query(symbol.given, context) if symbol.given else [context]
        return [(symbol.expression, extended) for extended in contexts]

    @staticmethod
    def _as_list(items: list[tuple[Any, Context]], context: Context) -> list[tuple[Any, Context]]:
        """Puts the grammar's separators between the items: ``a, b, and c``."""
        if not items:
            return [(textgen.NonterminalSymbol("list_empty"), context)]
        joined = [items[0]]
        for position, item in enumerate(items[1:], start=2):
            separator = "list_last_separator" if position == len(items) else "list_separator"
            joined += [(textgen.NonterminalSymbol(separator), context), item]
        return joined


def _predicates(condition: str | None) -> set[str]:
    if not condition:
        return set()
    return {predicate.name.removeprefix("not_") for predicate in parse_query(condition).preconditions}
