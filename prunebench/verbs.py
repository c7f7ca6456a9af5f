"""What each verb does, from its arguments to what it prints. Imports stand inside: `ls` is not to wait for torch."""

from __future__ import annotations

import json
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.errors import UsageError, brief
from prunebench.parsing import FAILED, OK, Parser, Verb, complain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from prunebench.compare import Comparison, Run
    from prunebench.config import RunConfig
    from prunebench.sweep_record import MemberRecord

OVERRIDES = "key=value: a setting (sparsity=0.9, trainer.epochs=3) or a choice (recipe=..., dataset=...; prunebench ls)"


def _common(parser: Parser, overrides: bool = True, config_dir: bool = True) -> None:
    if overrides:
        parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    if config_dir:
        parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own, laid out like conf/")
    parser.add_argument("--json", action="store_true", help="print JSON")


# --- output -------------------------------------------------------------------------------------------------------


def console(wide: bool = False) -> Console:
    """`wide`: a line stays a line in a pipe, so that grep finds it whole."""
    from rich.console import Console

    on = Console(highlight=False)
    return Console(highlight=False, width=500) if wide and not on.is_terminal else on


def show(renderable: RenderableType, on: Console | None = None) -> None:
    """Prints to stdout; in a pipe without colour and without blanks at the ends of lines."""
    on = on or console()
    with on.capture() as capture:
        on.print(renderable)
    text = capture.get()
    sys.stdout.write(text if on.is_terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines()))


def show_json(value: Any, indent: int | None = 2) -> None:
    sys.stdout.write(json.dumps(value, indent=indent, allow_nan=False) + "\n")


# --- run ----------------------------------------------------------------------------------------------------------


def add_run(parser: Parser) -> None:
    parser.add_argument("-m", "--multirun", action="store_true", help="a run for each value, as in seed=1,2,3")
    parser.add_argument("--force", action="store_true", help="do it again, even if it is finished")
    _common(parser)


def run(args: Namespace) -> int:
    if args.multirun:
        return run_sweep(args)
    config = _checked_single(args.overrides, args.config_dir)
    result = run_one(config, args.force)
    if not is_first():
        return OK
    if args.json:
        show_json(result)
    else:
        show_result(result, config.outputs)
    return OK


def run_one(config: RunConfig, force: bool) -> dict[str, Any]:
    from prunebench.run import run as run_config  # torch: only once the config is known to be sound

    return run_config(config, force=force)


def is_first() -> bool:
    """Of several processes (torchrun) the first one speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def run_sweep(args: Namespace) -> int:
    """A member that fails is named, and the others go on."""
    from prunebench.search import single_values
    from prunebench.sweep import command_of, grid, is_ours, run_members, swept_words

    def on_result(result: Mapping[str, Any]) -> None:
        if args.json and is_first():
            show_json(result, indent=None)

    words = swept_words(args.overrides, args.config_dir)
    command = command_of(args.overrides, args.config_dir, args.force)
    common: dict[str, Any] = {"config_dir": args.config_dir, "force": args.force, "on_result": on_result}
    settings = single_values(words, args.config_dir)
    if settings.search.name != "none":
        from prunebench.search import search

        outcome = search(words, settings, command=command, **common)
    else:
        launcher = [word for word in words if is_ours(word)]
        outcome = run_members(grid(words, args.config_dir), command=command, launcher=launcher, **common)
    if is_first() and not args.json:
        show_sweep(outcome.record.id, settings.outputs, args)
    for name, reason in outcome.failed:
        complain(f"{name}: {reason}")
    return FAILED if outcome.failed else OK


def show_sweep(sweep: str, outputs: str, args: Namespace) -> None:
    """The table of a sweep's runs, and how to see it again."""
    from prunebench.compare import compare, render, select_sweep
    from prunebench.progress import say

    runs, unfinished = select_sweep(sweep, outputs)
    if runs:
        on = console(wide=True)
        show(render.to_terminal(compare(runs, unfinished=unfinished), on), on)
        elsewhere = "" if outputs == "outputs" else f" --outputs {shlex.quote(outputs)}"
        say(f"prunebench compare --sweep {sweep}{elsewhere} shows it again")


def plan_sweep(args: Namespace) -> int:
    """What `run -m` would say before it starts. Nothing is fetched: what is not here is not known."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from prunebench.search import single_values, space
    from prunebench.sweep import grid, header_of, prepare, swept_words
    from prunebench.sweep_view import search_header

    words = swept_words(args.overrides, args.config_dir)
    settings = single_values(words, args.config_dir)
    if settings.search.name != "none":
        dimensions = [str(one) for one in space(words, settings, args.config_dir)]
        told: dict[str, Any] = {"runs": settings.search.runs, "search": dimensions}
        lines = search_header(None, dimensions, settings.search.runs)
    else:
        prepared = prepare(grid(words, args.config_dir), args.config_dir, lenient=True)
        lines = header_of(prepared, settings)
        lines += [f"  {one.member.name}" for one in prepared]
        told = {"runs": len(prepared), "members": [one.to_json() for one in prepared]}
    if args.json:
        show_json(told)
    else:
        sys.stdout.write("\n".join(lines) + "\n")
    return OK


def _checked_single(overrides: list[str], config_dir: str | None) -> RunConfig:
    """Of one run: launchers and searches are for several."""
    config = _checked(overrides, config_dir)
    for group in ("launcher", "search"):
        name = getattr(config, group).name
        if name not in ("local", "none"):
            raise UsageError(f"{group}={name}: goes with several runs: prunebench run -m ... seed=1,2,3")
    return config


def _checked(overrides: list[str], config_dir: str | None) -> RunConfig:
    from prunebench.compose import load_config
    from prunebench.validate import check

    config = load_config(overrides, config_dir)
    check(config)
    return config


def show_result(result: dict[str, Any], outputs: str) -> None:
    from prunebench.report import panel

    show(panel(result, f"{outputs}/{result['name']}/{result['digest']}"))


# --- plan, ls, show -----------------------------------------------------------------------------------------------


def add_plan(parser: Parser) -> None:
    parser.add_argument("-m", "--multirun", action="store_true", help="what run -m would do, for several runs")
    _common(parser)


def plan(args: Namespace) -> int:
    if args.multirun:
        return plan_sweep(args)
    config = _checked(args.overrides, args.config_dir)
    from prunebench.options import find_options
    from prunebench.preview import preview, to_json

    shown = preview(config, find_options(args.config_dir))
    if args.json:
        show_json(to_json(shown))
    else:
        from prunebench.plan_view import plan_view

        on = console()
        show(plan_view(shown, on), on)
    return OK


def add_ls(parser: Parser) -> None:
    parser.add_argument("what", nargs="?", help="methods, recipes, models, datasets, schedules, criteria, ..., runs")
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="where runs lie (default: outputs)")
    _common(parser, overrides=False)


def ls(args: Namespace) -> int:
    from prunebench import listing

    if args.what is None:
        rows = listing.count_options(args.config_dir)
        runs = len(listing.list_runs(args.outputs))
        rows.append({"name": listing.RUNS, "count": runs, "example": "prunebench show <digest>"})
    elif (kind := listing.listing_kind(args.what)) == listing.RUNS:
        rows = listing.list_runs(args.outputs)
    elif kind == listing.METHODS:
        rows = listing.list_methods(args.config_dir)
    else:
        rows = listing.list_options(kind, args.config_dir)
    if args.json:
        show_json(rows)
    else:
        from prunebench.views import listing_view

        on = console(wide=True)
        show(listing_view(rows, args.what, narrow=on.is_terminal), on)
    return OK


def add_show(parser: Parser) -> None:
    parser.add_argument("words", nargs="*", metavar="key=value | run", help=OVERRIDES + "; or a run's folder or digest")
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="where runs lie (default: outputs)")
    _common(parser, overrides=False)


def show_verb(args: Namespace) -> int:
    runs = [word for word in args.words if "=" not in word]
    if not runs:
        return show_config(args)
    if len(args.words) > 1:
        raise UsageError("show takes one run, or key=value words, not both")
    from prunebench.listing import find_run, read_result

    folder = find_run(runs[0], args.outputs)
    result = read_result(folder)
    if result.get("status") != "finished":
        reason = result.get("reason") or "the same command continues it"
        raise UsageError(f"{folder.root} is not finished (status: {result.get('status', 'unknown')}): {reason}")
    if args.json:
        show_json(result)
    else:
        show_result(result, str(folder.root.parent.parent))
    return OK


def show_config(args: Namespace) -> int:
    from omegaconf import OmegaConf

    config = OmegaConf.structured(_checked(args.words, args.config_dir))
    if args.json:
        show_json(OmegaConf.to_container(config))
    else:
        sys.stdout.write(OmegaConf.to_yaml(config))
    return OK


# --- compare ------------------------------------------------------------------------------------------------------


def add_compare(parser: Parser) -> None:
    parser.add_argument(
        "runs", nargs="*", metavar="run", help="a folder, digest, name or pattern ('name/*'); default: all"
    )
    parser.add_argument(
        "--where", metavar="FILTER", help="only runs like 'sparsity>=0.9 and not dataset in (sst2, mnli)'"
    )
    parser.add_argument("--baseline", metavar="RUN", help="also the difference to this name, digest or filter")
    parser.add_argument(
        "--sort", metavar="KEY", help="by a setting or result; -KEY: descending (default: best score first)"
    )
    parser.add_argument("--sweep", metavar="ID", help="the runs of this sweep, or of the last one")
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT", help="the runs of a project at Weights & Biases instead")
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="where runs lie (default: outputs)")
    parser.signed.add("--sort")
    form = parser.add_mutually_exclusive_group()
    for name in ("JSON", "CSV", "Markdown", "LaTeX"):
        form.add_argument(f"--{name.lower()}", action="store_true", help=f"print {name}")


def compare_verb(args: Namespace) -> int:
    from prunebench.compare import compare, parse_where

    runs, pool, unfinished = _runs_to_compare(args)
    if args.where and runs:
        fits = parse_where(args.where, runs)
        runs = [run for run in runs if fits(run)]
    comparison = compare(runs, baseline=args.baseline, sort=args.sort, pool=pool, unfinished=unfinished)
    show_comparison(comparison, args)
    return OK


def _runs_to_compare(args: Namespace) -> tuple[list[Run], list[Run], list[MemberRecord]]:
    """The runs, those among which a baseline may be found too, and members of a sweep that are not finished."""
    from prunebench.compare import load_runs, select, select_sweep

    if args.sweep is not None and (args.runs or args.wandb):
        raise UsageError("--sweep says which runs are compared: leave out the others, and --wandb")
    if args.wandb is not None:
        from prunebench.compare.wandb_runs import load_wandb

        return load_wandb(args.wandb, args.runs), [], []
    pool = load_runs(args.outputs)
    if args.sweep is None:
        return select(args.runs, args.outputs) if args.runs else pool, pool, []
    runs, unfinished = select_sweep(args.sweep, args.outputs)
    return runs, pool, unfinished


def show_comparison(comparison: Comparison, args: Namespace) -> None:
    from prunebench.compare import render

    if args.json:
        show_json(render.to_json(comparison))
    elif args.csv:
        sys.stdout.write(render.to_csv(comparison))
    elif args.markdown:
        sys.stdout.write(render.to_markdown(comparison))
    elif args.latex:
        sys.stdout.write(render.to_latex(comparison))
    else:
        on = console(wide=True)
        show(render.to_terminal(comparison, on), on)


# --- eval ---------------------------------------------------------------------------------------------------------


def add_eval(parser: Parser) -> None:
    parser.add_argument("folder", help="a run's folder, or any model folder (then name its data: dataset=...)")
    _common(parser)


def evaluate(args: Namespace) -> int:
    folder = Path(os.path.expanduser(args.folder))
    config = _eval_config(folder, args)
    from prunebench.run import evaluate_folder

    result = evaluate_folder(folder, config)
    if not is_first():
        return OK
    if args.json:
        show_json(result)
    else:
        from prunebench.views import evaluation_view

        show(evaluation_view(result))
    return OK


def _eval_config(folder: Path, args: Namespace) -> RunConfig | None:
    """None: a run's own. A model folder needs its data named; for a run they may be others than its own."""
    # os.path, since Path's methods raise for names that no system has
    is_run, overrides = os.path.isfile(folder / "config.yaml"), args.overrides
    if not is_run and not os.path.isfile(folder / "config.json"):
        raise UsageError(f"{brief(args.folder)}: neither a run's folder (config.yaml) nor a model's (config.json)")
    if any(word.startswith("dataset=") for word in overrides):
        model = folder / "model" if is_run else folder
        return _checked(["recipe=dense", f"start={model}", *overrides], args.config_dir)
    if not is_run:
        raise UsageError(f"{args.folder} is a model's folder: name its data, for instance dataset=sst2")
    if not overrides:
        return None
    from prunebench.compose import apply_settings, read_run_config
    from prunebench.validate import check

    config = apply_settings(read_run_config(folder / "config.yaml"), overrides)
    check(config)
    return config


# --- soup ---------------------------------------------------------------------------------------------------------


def add_soup(parser: Parser) -> None:
    parser.add_argument("runs", nargs="+", metavar="run", help="a finished run's folder or digest; two or more")
    parser.add_argument("--greedy", action="store_true", help="keep a run only if the average does not get worse")
    parser.add_argument("--out", metavar="DIR", help="where (default: soup/<digest> beside the runs)")
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="where runs lie (default: outputs)")
    _common(parser, overrides=False, config_dir=False)


def soup(args: Namespace) -> int:
    from prunebench.listing import find_run

    runs = [find_run(word, args.outputs) for word in args.runs]
    from prunebench.soup import make_soup

    out = Path(os.path.expanduser(args.out)) if args.out is not None else None
    result, folder = make_soup(runs, greedy=args.greedy, out=out)
    if args.json:
        show_json(result)
    else:
        from prunebench.report import panel

        show(panel(result, str(folder)))
    return OK


# --- reproduce ----------------------------------------------------------------------------------------------------


def add_reproduce(parser: Parser) -> None:
    parser.add_argument("words", nargs="*", metavar="table | key=value", help="a published table; " + OVERRIDES)
    parser.add_argument("--plan", action="store_true", help="print the grid and its cost, and run nothing")
    parser.add_argument("--show", action="store_true", help="print what is finished, and run nothing")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 1 to N of every cell (default: 3)")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN",
                        help="cells whose name (data | way | level) holds it; * and ? allowed")  # fmt: skip
    parser.add_argument("--scale", default="full", metavar="small", help="in minutes: tiny models, few data, few cells")
    parser.add_argument("--data", metavar="DIR", help="of the small scale: real data, laid out as ../shared/data")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--force", action="store_true", help="run finished cells again")
    _common(parser, overrides=False)


def reproduce(args: Namespace) -> int:
    from prunebench.reproduce.verb import answer

    answered = answer(args)
    if not is_first():
        return answered.status
    if args.json:
        show_json(answered.value, indent=None if answered.small else 2)  # small says so in every line
    else:
        sys.stdout.write("".join(f"{line}\n" for line in answered.lines))
    return answered.status


# --- dashboard ----------------------------------------------------------------------------------------------------


def add_dashboard(parser: Parser) -> None:
    parser.add_argument("--outputs", default="outputs", metavar="DIR", help="where runs lie (default: outputs)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="an address (default: 127.0.0.1); a token guards all but this machine's own"
    )
    parser.add_argument("--port", type=int, default=8765, help="default: 8765; 0: any that is free")
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--export", metavar="FILE", help="write one HTML file with everything in it instead")
    instead.add_argument(
        "--wandb", metavar="ENTITY/PROJECT", help="save a workspace at Weights & Biases for the runs there instead"
    )


def dashboard(args: Namespace) -> int:
    if args.wandb is not None:
        from prunebench.wandb_workspace import save_workspace

        address = save_workspace(args.wandb)
        return _point_to(address, address, args.open)
    if not os.path.isdir(args.outputs):
        raise UsageError(f"dashboard --outputs {brief(args.outputs)}: there is no such folder")
    if not 0 <= args.port < 65536:
        raise UsageError(f"dashboard --port {args.port}: a port is a number from 0 to 65535")
    from prunebench.dashboard.store import Store

    store = Store(Path(args.outputs))
    if args.export is None:
        from prunebench.dashboard.serve import serve

        serve(store, args.host, args.port, args.open)
        return OK
    from prunebench.dashboard.export import export

    path = Path(os.path.expanduser(args.export))
    for line in export(store, path):
        print(line, file=sys.stderr)
    return _point_to(str(path), path.resolve().as_uri(), args.open)


def _point_to(place: str, address: str, opens: bool) -> int:
    if opens:
        import webbrowser

        webbrowser.open(address)
    print(place)
    return OK


# --- doctor and clean ---------------------------------------------------------------------------------------------


def add_outputs(parser: Parser) -> None:
    parser.add_argument("outputs", nargs="?", default="outputs", help="where runs lie (default: outputs)")
    _common(parser, overrides=False, config_dir=False)


def doctor(args: Namespace) -> int:
    from prunebench.doctor import examine

    findings = examine(args.outputs)
    if args.json:
        show_json([vars(finding) for finding in findings])
    else:
        from prunebench.views import findings_view

        show(findings_view(findings), console(wide=True))
    return OK


def add_clean(parser: Parser) -> None:
    parser.add_argument("--yes", action="store_true", help="delete what is listed")
    add_outputs(parser)


def clean(args: Namespace) -> int:
    from prunebench.clean import find_waste
    from prunebench.paths import remove

    if not os.path.isdir(args.outputs):
        raise UsageError(f"clean {args.outputs}: there is no such folder")
    waste = find_waste(args.outputs)
    if args.yes:
        for item in waste:
            remove(item.path)
    if args.json:
        show_json([{"path": str(w.path), "why": w.why, "bytes": w.bytes, "removed": args.yes} for w in waste])
    else:
        from prunebench.views import waste_view

        show(waste_view(waste, args.yes), console(wide=True))
    return OK


VERBS: dict[str, Verb] = {
    "run": Verb(
        "Train, prune, evaluate and export; continues what was stopped, skips what is finished.",
        ["prunebench run recipe=bert_smc_90 dataset=sst2", "prunebench run recipe=bert_smc_90 sparsity=0.93 seed=2",
         "prunebench run recipe=bert_smc_90 dataset=sst2 start=my/fine-tuned-bert",
         "prunebench run -m recipe=bert_smc_90 dataset=sst2 seed=1,2,3",
         "prunebench run -m recipe=bert_smc_90 sparsity=0.5,0.9 'seed=range(1,4)' launcher=joblib launcher.n_jobs=4",
         "prunebench run -m recipe=bert_smc_90 dataset=sst2 search=lr_temperature search.runs=20"],
        add_run, run,
    ),
    "plan": Verb(
        "Show what a run would do and cost, within a second.",
        ["prunebench plan recipe=bert_smc_90 dataset=sst2 sparsity=0.95", "prunebench plan recipe=gmp_star_30 --json",
         "prunebench plan -m recipe=bert_smc_90 dataset=sst2 seed=1,2,3"],
        add_plan, plan,
    ),
    "ls": Verb(
        "List methods, recipes, models, datasets, ..., and runs.",
        ["prunebench ls", "prunebench ls methods", "prunebench ls recipes", "prunebench ls runs --json"],
        add_ls, ls,
    ),
    "show": Verb(
        "Show a run's complete settings as YAML, or a finished run.",
        ["prunebench show recipe=bert_smc_90 dataset=sst2", "prunebench show outputs/quickstart/0123456789ab",
         "prunebench show 0123"],
        add_show, show_verb,
    ),
    "compare": Verb(
        "Compare finished runs over seeds: differences, tests, sparsity, size and time.",
        ["prunebench compare", "prunebench compare 'bert_smc_90/*' gradual --baseline gradual",
         "prunebench compare --where 'sparsity>=0.9 and dataset=sst2' --sort -recovery --markdown",
         "prunebench compare --sweep last --csv",
         "prunebench compare --wandb entity/project --baseline 'recipe=one_shot'"],
        add_compare, compare_verb,
    ),
    "eval": Verb(
        "Score a run or any model folder again and count its zeros.",
        ["prunebench eval outputs/quickstart/0123456789ab", "prunebench eval my/fine-tuned-bert dataset=sst2"],
        add_eval, evaluate,
    ),
    "soup": Verb(
        "Average finished runs that have one mask, and score the average.",
        ["prunebench soup outputs/mine/0123456789ab outputs/mine/ba9876543210", "prunebench soup 0123 ba98 --greedy"],
        add_soup, soup,
    ),
    "reproduce": Verb(
        "List published tables, or run one's grid and lay ours beside the published numbers.",
        ["prunebench reproduce", "prunebench reproduce obert_30 --plan", "prunebench reproduce obert_30 --only squad",
         "prunebench reproduce obert_30 --show --markdown", "prunebench reproduce obert_30 --scale small"],
        add_reproduce, reproduce,
    ),
    "dashboard": Verb(
        "Show runs in a browser while they go on, in one HTML file, or in a workspace at Weights & Biases.",
        ["prunebench dashboard", "prunebench dashboard --outputs outputs --port 9000 --open",
         "prunebench dashboard --export report.html", "prunebench dashboard --wandb entity/project"],
        add_dashboard, dashboard,
    ),
    "doctor": Verb(
        "Check versions, devices, cache, network, wandb login and the outputs folder.",
        ["prunebench doctor", "prunebench doctor --json"],
        add_outputs, doctor,
    ),
    "clean": Verb(
        "List what finished runs no longer need; delete it with --yes.",
        ["prunebench clean", "prunebench clean --yes", "prunebench clean my-outputs --json"],
        add_clean, clean,
    ),
}  # fmt: skip
