"""Runs in folders: trained, gone on with, loaded, evaluated, exported."""

from smore_ext.runs.config_files import resolve
from smore_ext.runs.exports import export
from smore_ext.runs.folder import RunFolder, check_output, check_output_folder, new_run_dir
from smore_ext.runs.load import LoadedRun, Recommendation, load_run, run_dirs, seeds_config, unfinished_seeds
from smore_ext.runs.lock import RunInUse
from smore_ext.runs.records import read_result, write_json
from smore_ext.runs.results import summarise
from smore_ext.runs.run import cpu_threads, dataset_of, finished, open_dataset, stored_config, train, train_seed

__all__ = [
    "LoadedRun",
    "Recommendation",
    "RunFolder",
    "RunInUse",
    "check_output",
    "check_output_folder",
    "cpu_threads",
    "dataset_of",
    "export",
    "finished",
    "load_run",
    "new_run_dir",
    "open_dataset",
    "read_result",
    "resolve",
    "run_dirs",
    "seeds_config",
    "stored_config",
    "summarise",
    "train",
    "train_seed",
    "unfinished_seeds",
    "write_json",
]
