"""Trains a model for some epochs and prints losses and metrics as JSON."""

import argparse
import json

from common.trainer import Trainer
from utils.dataset import make_loaders, settings
from utils.seeds import seed_everything

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", "--model", default="Propagating")
    parser.add_argument("-d", "--dataset", default="tiny")
    args = parser.parse_args()
    config = settings()
    train, valid, test = make_loaders(config)
    seed_everything(config["seed"])
    train.pretrain_setup()
    module = __import__(f"models.{args.model.lower()}", fromlist=[args.model])
    model = getattr(module, args.model)(config, train)
    trainer = Trainer(config, model)
    print(json.dumps(trainer.fit(train, valid, test)))
