"""What a sweep with Hydra and Lightning mostly looks like: python hydra_app.py -m lr=0.1,0.01 folder=... [bare=true]"""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from work import lightning, quiet, read

ConfigStore.instance().store("config", {"lr": 0.001, "folder": "???", "seed": 0, "bare": False})


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config: DictConfig) -> float:
    quiet()
    folder = HydraConfig.get().runtime.output_dir
    return lightning(read(Path(config.folder)), config.lr, config.seed, folder, config.bare)


if __name__ == "__main__":
    main()
