"""Commands about this installation: cache, doctor, serve, worker."""

from __future__ import annotations

import argparse

from explorer.commands.command import Command, Found
from explorer.doctor import cached, examine
from explorer.settings import load_settings


def cache(args: argparse.Namespace) -> Found:
    return cached(load_settings(), args.prune)


def doctor(args: argparse.Namespace) -> Found:
    return examine(load_settings())


def serve(args: argparse.Namespace) -> Found:
    from explorer.serve import serve as run

    run(load_settings(), args.host, args.port)
    return None


def worker(args: argparse.Namespace) -> Found:
    from explorer.worker import main as run

    run(load_settings())
    return None


def _cache_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prune", action="store_true", help="remove stale and excess answers")


def _serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8501, help="default: 8501")


COMMANDS = (
    Command("cache", "what is stored here", cache, _cache_options, workspace=False),
    Command("doctor", "check installation, device, offline assets", doctor, workspace=False),
    Command("serve", "start worker and pages", serve, _serve_options, workspace=False),
    Command("worker", "run only the worker process", worker, workspace=False),
)
