"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _complete_override(ctx: typer.Context, incomplete: str) -> list[str]:
    from trainctl.cli import completion

    words = [str(word) for word in ctx.params.get("overrides") or []]
    folder = ctx.params.get("config_dir")
    return completion.complete(incomplete, words, Path(folder) if folder else None)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Hydra overrides such as model=mlp optimizer.lr=0.01",
        show_default=False,
        autocompletion=_complete_override,
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A path, a run id, a unique prefix, latest or latest:VERB")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, none if it fails; the rest on stderr")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More on stderr")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show the Python traceback of an error")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Where run directories are made and looked for")]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", "-C", help="Your own conf folder (default: ./conf if present)")
]
Trust = Annotated[
    list[str] | None,
    typer.Option("--trust", metavar="PKG", help="Let a run directory's config name classes of this package"),
]
RUNS = Path("runs")
