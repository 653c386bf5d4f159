"""Accelerators by name, for a compiler that doesn't need one there: what they are, and a mesh of their devices.

Two compilers run on any machine: libtpu's, for TPU topologies, and the CUDA plugin's, for a GPU that a few public
figures describe. `make accelerators` installs both. What they tell are estimates, no measurements.
"""

import dataclasses
import importlib.util
import os
import threading
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from expertlens_jax import parallel
from expertlens_jax.errors import ExpertLensError

GIB = 2**30

_LOADING = threading.Lock()
"""A compiler is loaded into the process once: two threads that ask JAX for it at once would both load it."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One kind of accelerator, and how many of its devices stand together."""

    name: str
    platform: str
    """"tpu" or "cuda"."""
    topology: str
    """As the platform's compiler calls it."""
    num_devices: int
    memory: int
    """Bytes of a device that programs may take; of a TPU, what libtpu's compiler says it has."""
    flops_per_cycle: int | None
    """The most bfloat16 operations of a device in one of the cycles that the compiler estimates; None: it doesn't."""
    description: str

    @property
    def compiler(self) -> str:
        """The module that holds the compiler."""
        return {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}[self.platform]

    def check_compiler(self) -> None:
        """Refuses to go on without the target's compiler.

        Raises:
          ExpertLensError: it isn't installed.
        """
        if importlib.util.find_spec(self.compiler) is None:
            raise ExpertLensError(
                f"{self.compiler} isn't installed here, which compiles for {self.name}. Run "
                f'make accelerators ARGS="{self.name}", which installs it into .venv-accelerators and compiles there.'
            )

    def mesh(self, model: int = 1) -> Mesh:
        """A mesh `(data, model)` of the target's devices, to lower programs for.

        Raises:
          ExpertLensError: `model` doesn't divide the number of devices, or the compiler isn't installed.
        """
        if self.num_devices % model:
            raise ExpertLensError(
                f"model={model} was given; the {self.num_devices} device{'s' * (self.num_devices > 1)} of "
                f"{self.name} can be shared out with model="
                f"{', '.join(str(n) for n in range(1, self.num_devices + 1) if self.num_devices % n == 0)}."
            )
        self.check_compiler()
        with _LOADING:
            if self.platform == "tpu":
                topology = topologies.get_topology_desc(platform="tpu", topology_name=self.topology)
            else:
                topology = topologies.get_topology_desc(
                    self.name, platform="cuda", target_config=H100_CONFIG, topology=self.topology
                )
        return parallel.auto_mesh(np.array(topology.devices).reshape(-1, model), (parallel.DATA, parallel.MODEL))


# A TPU's operations a cycle are those of its matrix units: 4 of 128 x 128 multiply-adds on a v5e, 8 on a v5p (two
# cores, one device), 4 x 256 x 256 on a v6e and on each of a tpu7x chip's two cores, which are devices of their own.
TARGETS: tuple[Target, ...] = (
    Target("v5e:2x2", "tpu", "v5e:2x2", 4, int(15.75 * GIB), 131_072, "TPU v5e, 4 chips"),
    Target("v5e:4x4", "tpu", "v5e:4x4", 16, int(15.75 * GIB), 131_072, "TPU v5e, 16 chips"),
    Target("v5e:16x16", "tpu", "v5e:16x16", 256, int(15.75 * GIB), 131_072, "TPU v5e, a pod of 256 chips"),
    Target("v5p:4x4x4", "tpu", "v5p:4x4x4", 64, int(95.74 * GIB), 262_144, "TPU v5p, 64 chips"),
    Target("v6e:2x2", "tpu", "v6e:2x2", 4, int(31.25 * GIB), 524_288, "TPU v6e, 4 chips"),
    Target("tpu7x:2x2x1", "tpu", "tpu7x:2x2x1", 8, int(94.75 * GIB), 524_288, "TPU 7x, 4 chips of 2 devices"),
    Target("h100", "cuda", "1x1x1", 1, 80 * 10**9, None, "NVIDIA H100 SXM, one card"),
)

# A GpuTargetConfigProto, from NVIDIA's data sheet of the H100 SXM (132 multiprocessors at up to 1.98 GHz, 80 GB at
# 3.35 TB/s, 50 MB of L2) and the CUDA programming guide's table of compute capability 9.0.
H100_CONFIG = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 80000000000
  memory_bandwidth: 3350000000000
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 SXM"
"""


def find_targets(names: Sequence[str]) -> tuple[Target, ...]:
    """The targets of these names.

    Raises:
      ExpertLensError: a name that isn't there.
    """
    by_name = {target.name: target for target in TARGETS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        listed = "; ".join(f"{target.name} ({target.description})" for target in TARGETS)
        raise ExpertLensError(f"there is no target {', '.join(map(repr, unknown))}. There are {listed}.")
    return tuple(by_name[name] for name in names)


def without_accelerators() -> None:
    """Tells jax and the compilers that no accelerator is there: to be called before anything is computed.

    There is no TPU to ask what it is, and no GPU to check the CUDA libraries against or to time kernels on; and one
    that is there is left alone.
    """
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several processes may compile at once
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5e-4")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_autotune_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
