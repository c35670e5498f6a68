"""Item generators: five domains, each a handful of sub-skills whose answers code can check.

A generator takes a seeded `random.Random` and returns (prompt, answer). Prompts never end in a space (lm-eval would
move it into the scored part) and no answer looks like a list (lm-eval would parse it).
"""

from __future__ import annotations

from simmerge_core.demo.domains.code import SKILLS as CODE
from simmerge_core.demo.domains.generator import Generator
from simmerge_core.demo.domains.instruct import SKILLS as INSTRUCT
from simmerge_core.demo.domains.math import SKILLS as MATH
from simmerge_core.demo.domains.multilingual import SKILLS as MULTILINGUAL
from simmerge_core.demo.domains.rag import SKILLS as RAG

DOMAINS: dict[str, dict[str, Generator]] = {
    "math": MATH,
    "code": CODE,
    "multilingual": MULTILINGUAL,
    "rag": RAG,
    "instruct": INSTRUCT,
}

__all__ = ["DOMAINS", "Generator"]
