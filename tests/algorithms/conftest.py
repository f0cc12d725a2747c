import os

import numpy as np
import pytest
import ray

from rlplatform.algorithms.registration import register_trading_env
from tests.algorithms.toys import ToyTape, make_single, make_vector


@pytest.fixture(scope="session")
def ray_session():
    """One private Ray for all tests of this room; four logical CPUs, so that runners never wait for each other."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        ignore_reinit_error=True,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def toy_env(ray_session) -> str:
    """The registered name of the toys; `env_config={"toy": ...}` chooses one."""
    return register_trading_env("Toy-v0", ToyTape(np.arange(300_000.0).reshape(-1, 3)), make_single, make_vector)
