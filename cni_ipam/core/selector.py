"""Calico's selector language: which nodes, or namespaces, a pool is for.

    selector   := "" | or                            the empty text is all()
    or         := and ( "||" and )*
    and        := operation ( "&&" operation )*
    operation  := "!"* ( "has(" LABEL ")" | "all()" | "global()" | "(" or ")" | LABEL comparison )
    comparison := ( "==" | "!=" | "contains" | "starts with" | "ends with" ) STRING
                | ( "in" | "not in" ) "{" [ STRING ( "," STRING )* [","] ] "}"

White space is space and tab, strings have no escapes, and the words are operators only right
after a label: `in in {'a'}` asks for a label called `in`. What a text means, its canonical
spelling and the messages are Calico's (libcalico-go/lib/selector). Nested parentheses are the only
recursion, and they are counted.
"""

from __future__ import annotations

from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Node: TypeAlias = "_Everything | _Has | _Compare | _Not | _Group"
    Token = tuple[str, str]

DEEPEST_NESTING = 100
LONGEST_LABEL = 512

_LABEL_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-")
_SYMBOLS = {"==": "Eq", "!=": "Ne", "&&": "And", "||": "Or"}
_PUNCTUATION = {"(": "LParen", ")": "RParen", "{": "LBrace", "}": "RBrace"}
_PUNCTUATION |= {",": "Comma", "!": "Not"}
_WORDS = (
    ("Contains", ("contains",)),
    ("StartsWith", ("starts", "with")),
    ("EndsWith", ("ends", "with")),
    ("NotIn", ("not", "in")),
    ("In", ("in",)),
)
_FUNCTIONS = (("Has", "has"), ("All", "all"), ("Global", "global"))
_STRING_OPERATORS = {
    "Eq": "==",
    "Ne": "!=",
    "Contains": "contains",
    "StartsWith": "starts with",
    "EndsWith": "ends with",
}
_SET_OPERATORS = {"In": "in", "NotIn": "not in"}
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda found, wanted: found == wanted,
    "!=": lambda found, wanted: found != wanted,
    "contains": lambda found, wanted: wanted in found,
    "starts with": lambda found, wanted: found.startswith(wanted),
    "ends with": lambda found, wanted: found.endswith(wanted),
    "in": lambda found, wanted: found in wanted,
    "not in": lambda found, wanted: found not in wanted,
}


@record
class _Everything:
    """`all()` or `global()`: every set of labels."""

    function: str

    def matches(self, _: Mapping[str, str]) -> bool:
        return True

    def __str__(self) -> str:
        return f"{self.function}()"


@record
class _Has:
    """The label is there, whatever its value."""

    label: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        return self.label in labels

    def __str__(self) -> str:
        return f"has({self.label})"


@record
class _Compare:
    """A label's value against a text, or against a sorted set of texts."""

    label: str
    operator: str
    wanted: str | tuple[str, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.label not in labels:
            return self.operator in ("!=", "not in")
        return _TESTS[self.operator](labels[self.label], self.wanted)

    def __str__(self) -> str:
        if isinstance(self.wanted, str):
            right = _quote(self.wanted)
        else:
            right = "{" + ", ".join([_quote(text) for text in self.wanted]) + "}"
        return f"{self.label} {self.operator} {right}"


@record
class _Not:
    """The opposite."""

    operand: Node

    def matches(self, labels: Mapping[str, str]) -> bool:
        return not self.operand.matches(labels)

    def __str__(self) -> str:
        return f"!{self.operand}"


@record
class _Group:
    """One of the alternatives, each of which is a list of conditions that must all hold."""

    alternatives: tuple[tuple[Node, ...], ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        for conditions in self.alternatives:
            for condition in conditions:
                if not condition.matches(labels):
                    break
            else:
                return True
        return False

    def __str__(self) -> str:
        texts = []
        for conditions in self.alternatives:
            text = " && ".join([str(condition) for condition in conditions])
            texts.append(f"({text})" if len(conditions) > 1 else text)
        return f"({' || '.join(texts)})" if len(texts) > 1 else texts[0]


@record
class Selector:
    """A parsed selector; its text is the canonical one."""

    root: Node

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects something that has these labels."""
        return self.root.matches(labels)

    def __str__(self) -> str:
        return str(self.root)


EVERYTHING = Selector(_Everything("all"))


def parse_selector(text: str) -> Selector:
    """The selector that `text` spells. Raises ValueError with Calico's message."""
    if text in ("", "all()"):
        return EVERYTHING
    tokens = _tokenize(text)
    if len(tokens) == 1:
        return EVERYTHING
    parser = _Parser(tokens)
    root = parser.group(0)
    if parser.at != len(tokens) - 1:
        rest = " ".join([_show(token) for token in tokens[parser.at :]])
        raise ValueError(f"unexpected content at end of selector [{rest}]")
    return Selector(root)


def unique_id(selector: Selector) -> str:
    """Calico's identifier of a selector: a hash of the canonical text."""
    from base64 import urlsafe_b64encode
    from hashlib import sha224

    digest = sha224(f"s:{selector}".encode("utf-8", "surrogatepass")).digest()
    return "s:" + urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def _quote(text: str) -> str:
    return f"'{text}'" if '"' in text else f'"{text}"'


def _show(token: Token) -> str:
    return f"Tok{token[0]}({token[1]})"


class _Parser:
    """The tokens and how far they are read."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def take(self, kind: str) -> bool:
        """Step over the next token if it is of this kind."""
        if self.tokens[self.at][0] != kind:
            return False
        self.at += 1
        return True

    def group(self, depth: int) -> Node:
        alternatives: list[tuple[Node, ...]] = []
        while True:
            conditions = [self.operation(depth)]
            while self.take("And"):
                conditions.append(self.operation(depth))
            alternatives.append(tuple(conditions))
            if not self.take("Or"):
                break
        if len(alternatives) == 1 and len(alternatives[0]) == 1:
            return alternatives[0][0]
        return _Group(tuple(alternatives))

    def operation(self, depth: int) -> Node:
        negated = False
        while self.take("Not"):
            negated = not negated
        node = self.operand(depth)
        return _Not(node) if negated else node

    def operand(self, depth: int) -> Node:
        kind, value = token = self.tokens[self.at]
        self.at += 1
        if kind == "Has":
            return _Has(value)
        if kind in ("All", "Global"):
            return _Everything(kind.lower())
        if kind == "Label":
            return self.comparison(value)
        if kind != "LParen":
            raise ValueError(f"unexpected token: {_show(token)}")
        if depth == DEEPEST_NESTING:
            raise ValueError(f"selector is nested deeper than {DEEPEST_NESTING} parentheses")
        node = self.group(depth + 1)
        if not self.take("RParen"):
            raise ValueError("expected )")
        return node

    def comparison(self, label: str) -> Node:
        if self.at + 1 >= len(self.tokens):
            raise ValueError("unexpected end of string looking for op")
        kind, _ = token = self.tokens[self.at]
        self.at += 1
        if kind in _STRING_OPERATORS:
            if not self.take("StringLiteral"):
                raise ValueError("expected string")
            return _Compare(label, _STRING_OPERATORS[kind], self.tokens[self.at - 1][1])
        if kind in _SET_OPERATORS:
            return _Compare(label, _SET_OPERATORS[kind], self.string_set())
        raise ValueError(f"expected == or != not: {_show(token)}")

    def string_set(self) -> tuple[str, ...]:
        if not self.take("LBrace"):
            raise ValueError("expected set literal")
        members = set()
        while self.take("StringLiteral"):
            members.add(self.tokens[self.at - 1][1])
            if not self.take("Comma"):
                break
        if not self.take("RBrace"):
            raise ValueError("expected }")
        return tuple(sorted(members))


def _tokenize(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = _skip_space(text, 0)
    while at < len(text):
        label = tokens[-1][1] if tokens and tokens[-1][0] == "Label" else None
        token, at = _read_token(text, at, label)
        tokens.append(token)
        at = _skip_space(text, at)
    tokens.append(("EOF", ""))
    return tokens


def _read_token(text: str, at: int, label: str | None) -> tuple[Token, int]:
    """The token at `at` and where it ends; `label` is the label right before it, if any."""
    character = text[at]
    symbol = text[at : at + 2]
    if symbol in _SYMBOLS:
        return (_SYMBOLS[symbol], ""), at + 2
    if character in _PUNCTUATION:
        return (_PUNCTUATION[character], ""), at + 1
    if character in "=&|":
        raise ValueError(f"expected {character * 2}")
    if character in "\"'":
        end = text.find(character, at + 1)
        if end < 0:
            raise ValueError("unterminated string")
        return ("StringLiteral", text[at + 1 : end]), end + 1
    if label is not None:
        return _read_word_operator(text, at, label)
    for kind, name in _FUNCTIONS:
        if text.startswith(f"{name}(", at):
            return _read_function(text, at + len(name) + 1, kind, name)
    return _read_label(text, at)


def _read_word_operator(text: str, at: int, label: str) -> tuple[Token, int]:
    for kind, words in _WORDS:
        end = at
        for word in words:
            end = _skip_space(text, end)
            if not text.startswith(word, end):
                break
            end += len(word)
        else:
            if end == len(text) or text[end] not in _LABEL_CHARACTERS:
                return (kind, ""), end
    raise ValueError(f'expected operator after label "{label}"')


def _read_function(text: str, at: int, kind: str, name: str) -> tuple[Token, int]:
    """`has(`, `all(` or `global(` is read already; the rest of it begins at `at`."""
    label = ""
    at = _skip_space(text, at)
    if kind == "Has":
        (_, label), at = _read_label(text, at)
        at = _skip_space(text, at)
    if not text.startswith(")", at):
        raise ValueError(f"no closing ')' after {name}(")
    return (kind, label), at + 1


def _read_label(text: str, at: int) -> tuple[Token, int]:
    end = at
    while end < len(text) and text[end] in _LABEL_CHARACTERS:
        end += 1
    if end == at:
        raise ValueError("expected identifier")
    if end - at > LONGEST_LABEL:
        raise ValueError(f"label too long: {text[at : at + LONGEST_LABEL]}…")
    return ("Label", text[at:end]), end


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at
