"""Words of six languages, read from `num2words` and `babel` once per process."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

from simmerge_core.errors import CatalogError

LANGUAGES = ("en", "de", "fr", "es", "it", "pt")
# fmt: off
TERRITORIES = (
    "AT", "BE", "BR", "CA", "CH", "CL", "CN", "CZ", "DE", "DK", "EG", "ES", "FI", "FR", "GR",
    "HU", "IE", "IN", "IT", "JP", "MX", "NL", "NO", "PE", "PL", "PT", "SE", "TR", "UA", "US",
)
# fmt: on


@dataclass(frozen=True)
class Lexicon:
    """`numbers[language][n]` for n in 0..199, and `names[kind][language][index]`; all lower case, composed (NFC)."""

    numbers: dict[str, tuple[str, ...]]
    names: dict[str, dict[str, tuple[str, ...]]]

    def texts(self) -> set[str]:
        """Every string of the lexicon."""
        found = {text for words in self.numbers.values() for text in words}
        for by_language in self.names.values():
            for words in by_language.values():
                found.update(words)
        return found


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()


@cache
def lexicon() -> Lexicon:
    """Read the words.

    Raises
    ------
    CatalogError
        If `num2words` or `babel` is not installed.
    """
    try:
        from babel import Locale
        from num2words import num2words
    except ImportError as error:
        raise CatalogError(
            f"The demo catalog takes its words from num2words and babel, and {error.name} is not installed: "
            "install the extra with `pip install 'simmerge[demo]'`."
        ) from error

    numbers: dict[str, tuple[str, ...]] = {}
    names: dict[str, dict[str, tuple[str, ...]]] = {"months": {}, "weekdays": {}, "territories": {}}
    for language in LANGUAGES:
        numbers[language] = tuple(_normal(num2words(n, lang=language)) for n in range(200))
        locale = Locale(language)
        months, days = locale.months["format"]["wide"], locale.days["format"]["wide"]
        names["months"][language] = tuple(_normal(months[i]) for i in range(1, 13))
        names["weekdays"][language] = tuple(_normal(days[i]) for i in range(7))
        names["territories"][language] = tuple(_normal(locale.territories[code]) for code in TERRITORIES)
    return Lexicon(numbers, names)
