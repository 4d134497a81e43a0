"""`make bench`: what the README's figures come from. `--only small|large|scale|scrape`, `--rounds N`."""

import argparse

from tests.bench import data, peer, scale


def main() -> None:
    """Run what was asked for and print Markdown."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", choices=["small", "large", "scale"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blobs", type=int, default=10_000_000)
    chosen = parser.parse_args()
    if chosen.only in (None, "large"):
        print(peer.compare("1 GiB in four files", data.large, chosen.rounds), flush=True)
    if chosen.only in (None, "small"):
        print(peer.compare("40,000 small files", data.small, chosen.rounds), flush=True)
    if chosen.only in (None, "scale"):
        print(scale.scale(chosen.blobs), flush=True)


if __name__ == "__main__":
    main()
