"""Numbers as people write them: `1,234.5` in English, `1.234,5` or `1 234,5` in much of Europe.

`data.numbers` says which; without it such a column is refused, since to guess wrong would be silent.
"""

from __future__ import annotations

import polars as pl

from trainctl.errors import DataError, UsageError

STYLES = ("plain", "english", "european")
_GAP = r"[\s\x{A0}\x{202F}']"
_PLAIN = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_WRITTEN = {
    "english": rf"^\s*[+-]?[1-9]\d{{0,2}}((,\d{{3}})+|({_GAP}\d{{3}})+)(\.\d+)?\s*$",
    "european": rf"^\s*[+-]?(\d+|[1-9]\d{{0,2}}((\.\d{{3}})+|({_GAP}\d{{3}})+))(,\d+)?([eE][+-]?\d+)?\s*$",
}
_GROUPS = {"english": rf"[,']|{_GAP}", "european": rf"[.']|{_GAP}"}
_EXAMPLES = {"english": "1,234.5", "european": "1.234,5"}
MOSTLY = 0.9


def check_style(style: str) -> None:
    """UsageError unless `style` is one of STYLES."""
    if style not in STYLES:
        raise UsageError(
            f"`data.numbers` is {style!r}; it must be plain (1234.5), english (1,234.5) or european (1.234,5)"
        )


def as_plain(frame: pl.DataFrame, style: str) -> pl.DataFrame:
    """The frame with each text that is a number in `style` written as `1234.5`."""
    if style == "plain":
        return frame
    text = pl.selectors.string()
    number = text.str.replace_all(_GROUPS[style], "").str.replace(",", ".", literal=True)
    return frame.with_columns(pl.when(text.str.contains(_WRITTEN[style])).then(number).otherwise(text).name.keep())


def as_typed(frame: pl.DataFrame, text: list[str]) -> pl.DataFrame:
    """Text columns that hold numbers only as such, those in `text` left alone."""
    found = []
    for series in frame.iter_columns():
        for kind in (pl.Int64, pl.Float64) if series.dtype == pl.String and series.name not in text else ():
            cast = series.str.strip_chars().cast(kind, strict=False)
            if cast.null_count() == series.null_count():
                series = cast
                break
        found.append(series)
    return pl.DataFrame(found)


def check_plain(texts: pl.Series, counts: pl.Series, what: str, instead: str) -> None:
    """DataError when most of the texts (each `counts` times there) are numbers in a style that is not plain."""
    plain, total = texts.str.contains(_PLAIN), MOSTLY * int(counts.sum())
    written = {style: texts.str.contains(pattern) & ~plain for style, pattern in _WRITTEN.items()}
    whole = texts.str.contains(r"^\s*[+-]?\d+\s*$")
    styles = [
        style
        for style, fits in written.items()
        if fits.any() and int(counts.filter(fits | (plain if style == "english" else whole)).sum()) >= total
    ]
    if styles:
        example = texts.filter(written[styles[0]]).sort()[0]  # the same in every run
        setting = " or ".join(f"`data.numbers={style}` (as in {_EXAMPLES[style]})" for style in styles)
        raise DataError(f"{what} holds numbers written as '{example}'; set {setting}, or {instead}")
