"""What the sandbox changes in a template's syntax tree before it is compiled.

jinja2 lets an environment look at calls, filters and operators, but not at loop
turns, `~`, slices, comparisons and literals. Here each of those gets a filter around it
that the sandbox provides: `_turns`, `_concat`, `_stepped` and `_held`.
"""

from typing import cast

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

_MAX_BLOCK_DEPTH = 20


def refuse_unbounded(tree: nodes.Template) -> None:
    """Refuse what no chat template needs and the sandbox could not bound."""
    for name in tree.find_all(nodes.Name):
        if name.name in ("varargs", "kwargs"):
            raise SecurityError(f"it uses {name.name!r}")
    _check_depth(tree)
    if any(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        raise SecurityError("it loads another template")


class Metering(NodeTransformer):
    """Puts the sandbox's own filters around what jinja2 offers no hook for."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_turns")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Count each comparison: that of two long lists takes milliseconds."""
        self.generic_visit(node)
        for operand in node.ops:
            if not isinstance(operand.expr, nodes.Const):
                operand.expr = _filtered(operand.expr, "_stepped")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, "_held") if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._literal(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return node if node.ctx == "store" else self._literal(node, node.items)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._literal(node, [part for pair in node.items for part in (pair.key, pair.value)])

    def _literal(self, node: nodes.Expr, items: list[nodes.Expr]) -> nodes.Node:
        self.generic_visit(node)
        if all(isinstance(item, nodes.Const) for item in items):
            return node
        return _filtered(node, "_held")


def _check_depth(tree: nodes.Template) -> None:
    # The time to compile grows with more than the square of how deep blocks are nested.
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        depth += isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.FilterBlock)
        depth += isinstance(node, nodes.With | nodes.AssignBlock | nodes.Block | nodes.Scope)
        if depth > _MAX_BLOCK_DEPTH:
            raise SecurityError(f"it nests blocks deeper than {_MAX_BLOCK_DEPTH} levels")
        waiting += [(child, depth) for child in node.iter_child_nodes()]


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None, lineno=node.lineno)


class GenerationBlocks(Extension):
    """Accepts `{% generation %}…{% endgeneration %}`, which marks answers for training."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
