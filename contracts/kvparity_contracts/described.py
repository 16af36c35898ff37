"""What the fields of models mean, from the docstrings under them.

pydantic could put them into the models (``use_attribute_docstrings``). It would read the source of
every model in every process that imports one, which takes longer than to build the models; few
processes need a meaning.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema


def meanings(model: type[BaseModel]) -> Mapping[str, str]:
    """By name of a field, those that it inherits included; one without a docstring is left out."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        told = _of_module(each.__module__).get(each.__qualname__, {})
        for name in vars(each).get("__annotations__", {}):
            found.pop(name, None)
        found |= told
    return {name: found[name] for name in model.model_fields if name in found}


@cache
def _of_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """By qualified name of a class: the docstrings under its annotated names."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (OSError, TypeError, KeyError):  # it has no source, as those of Python itself
        return {}
    return dict(_classes(tree, ""))


def _classes(tree: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield f"{prefix}{node.name}", dict(_docstrings(node))
            yield from _classes(node, f"{prefix}{node.name}.")


def _docstrings(tree: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            yield node.target.id, inspect.cleandoc(after.value.value)


class DescribedSchema(GenerateJsonSchema):
    """A JSON schema with these meanings as descriptions."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """As pydantic does, for a model that has its docstrings."""
        found = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for name, meaning in meanings(model).items():
            found["properties"][model.model_fields[name].alias or name]["description"] = meaning
        return found
