"""`python -m components.download`: the step alone, and the verification of what it left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from components.download.step import run_download
from components.download.verify import verify_manifest
from trainer.config import Config
from trainer.errors import reported
from trainer.flags import FlagParser, add_flags, flag_overrides
from trainer.progress import say

USAGE = """python -m components.download SOURCE --destination FOLDER [FLAG …]
       python -m components.download --verify MANIFEST"""
DESCRIPTION = """Fetches the shards of SOURCE, proves each by its MD5 and writes a manifest of them.
SOURCE is youtube8m:RELEASE/LEVEL (such as youtube8m:2/frame), http(s)://…/RELEASE/LEVEL with plans
and shards as the official servers have them, a folder, or `sample`. Killed at any moment and
started again, it goes on; what is there and proved is not fetched again. Exit code 0: every shard
is there with the right bytes; 1: what is missing is said, with the reason."""


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        _main(arguments)
    except KeyboardInterrupt:
        say("download", "interrupted: what is there stays; start it again")
        raise SystemExit(130) from None


def _main(arguments: Sequence[str] | None) -> None:
    with reported():
        parser = FlagParser(usage=USAGE, description=DESCRIPTION)
        parser.add_argument("source", nargs="?", metavar="SOURCE")
        parser.add_argument("--destination", help="folder that the shards and the manifest go to")
        parser.add_argument(
            "--json", action="store_true",
            help="transfers as JSON lines on standard output; all words go to standard error",
        )  # fmt: skip
        parser.add_argument(
            "--verify", metavar="MANIFEST",
            help="read every byte of a manifest's shards again: their MD5s, each record's checksum",
        )  # fmt: skip
        add_flags(parser, ("download", "sample"))
        options = parser.parse(list(sys.argv[1:] if arguments is None else arguments))
        if options.verify:
            if options.source:
                parser.error("--verify takes no SOURCE")
            count = verify_manifest(options.verify)
            say("verify", f"{count:,} shards are as the manifest has them, every record is sound")
            return
        if not options.source or not options.destination:
            parser.error("expected SOURCE and --destination, or --verify MANIFEST")
        config = Config().updated(flag_overrides(options))
        lines = sys.stdout if options.json else None
        with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
            uri, _ = run_download(
                options.source, options.destination, config, options.destination, "", lines
            )
            say("download", f"manifest: {uri}")


if __name__ == "__main__":
    main()
