"""Flags made from the settings of the loop and of the models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import click

from smore_ext.models.registry import MODELS
from smore_ext.runs.config_files import read_yaml
from smore_ext.runs.folder import RunFolder
from smore_ext.settings.config import Layer, TrainConfig, config_class, flag_name, loop_value
from smore_ext.settings.fields import Setting, aliases_of, metavar, settings_of


class SettingOption(click.Option):
    """A flag of a setting. Its text stays one, in `ctx.obj` under the setting's name: models declare the types, and
    the model is known when all flags are read."""

    def __init__(self, name: str, setting: Setting, owner: str) -> None:
        self.setting, self.owner = setting, owner
        default = setting.default
        shown = "" if default in (None, (), {}, dataclasses.MISSING) else f"default {default}"
        switch = setting.hint is bool
        flags = [flag_name(name) + (f"/--no-{flag_name(name)[2:]}" if switch else ""), setting.of("short")]
        super().__init__(
            [name.replace(".", "__"), *filter(None, flags)],
            default=None,
            type=None if switch else str,
            metavar=None if switch else metavar(setting.hint),
            help="; ".join(filter(None, [setting.help, shown])),
            expose_value=False,
            callback=lambda ctx, _, value: None if value is None else ctx.obj.update({name: value}),
        )


class SettingsCommand(click.Command):
    """A command whose flags are its own and all settings, which help lists by the loop and by model; of models only
    the one that is named. The settings that the user gave are its object (`click.pass_obj`), as texts by name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = {}
        named = [name for name in [_named_model(args)] if name]
        models = dict.fromkeys([*named, *MODELS.loadable()])  # the first shows its defaults where models share a name
        groups = {f"Model {name}": config_class(name) for name in models}
        taken = {flag for param in super().get_params(ctx) for flag in param.opts}
        ctx.meta["hidden"] = {f"Model {name}" for name in models if named and name not in named}
        ctx.meta["settings"] = list(_setting_options(groups, taken))
        ctx.meta["aliases"] = aliases_of(option.setting for option in ctx.meta["settings"])
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get("settings", ())]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            owner = getattr(param, "owner", "Options")
            if record is not None and owner not in ctx.meta["hidden"]:
                groups.setdefault(owner, []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def _setting_options(models: Mapping[str, type], taken: Set[str]) -> Iterator[SettingOption]:
    """One flag a name: two models may share one, with the first's type in the help. What the loop and a model both
    have is `--train.name` and `--model.name`; `--name` is left to the models that do not have it. `taken`: flags of
    the command itself."""
    loop = settings_of(TrainConfig)
    own = {owner: settings_of(cls) for owner, cls in models.items()}
    groups = {"Training": loop | {f"train.{n}": s for n, s in loop.items() if any(n in o for o in own.values())}}
    for owner, settings in own.items():
        prefixed = {name for name in settings if name in loop or flag_name(name) in taken}
        groups[owner] = {f"model.{name}" if name in prefixed else name: s for name, s in settings.items()}
    done: set[str] = set()
    for owner, settings in groups.items():
        yield from (SettingOption(name, setting, owner) for name, setting in settings.items() if name not in done)
        done |= settings.keys()


def _named_model(args: Sequence[str]) -> str | None:
    """The model that the flags, or else the file of settings that they name, ask for: it may be one from elsewhere,
    whose settings are flags too."""
    options = [
        click.Option(names) for names in (["-m", "--model"], ["--train.model", "model"], ["--config"], ["--resume"])
    ]
    lenient = {"ignore_unknown_options": True, "allow_extra_args": True}
    finder = click.Command("", params=options, add_help_option=False, context_settings=lenient)
    given = finder.make_context("", list(args), resilient_parsing=True).params
    file = given["config"] or (given["resume"] and RunFolder(Path(given["resume"])).config)
    if given["model"] or not file or not Path(file).is_file():
        return given["model"]
    return loop_value([Layer(f"file {file}", read_yaml(file))], "model")
