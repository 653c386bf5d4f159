"""Devices and hosts: meshes over them, arrays laid out on a mesh, and programs of several processes."""

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from expertlens_jax.cards import counted
from expertlens_jax.errors import ExpertLensError, HostError

DATA, MODEL = "data", "model"
"""The names of a mesh's axes: rows of a batch are split over the first, parameters over the second."""

HEARTBEAT_SECONDS = 20
"""After how long without a sign of life a host is taken for dead; the others stop then."""


def num_cores() -> int:
    """Return how many cores of the host this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_mesh(model: int = 1) -> Mesh:
    """Make a mesh `(data, model)` of all devices, for models that one device can't hold.

    Args:
      model: over how many devices each parameter is split. The rest, `devices / model`, each work on other
        rows of a batch and hold the parameters again.

    Raises:
      ExpertLensError: `model` doesn't divide the number of devices.

    >>> import expertlens_jax as el
    >>> mesh = el.make_mesh(model=1)
    >>> mesh.axis_names, mesh.shape["model"]
    (('data', 'model'), 1)
    """
    devices = jax.devices()
    if model < 1 or len(devices) % model:
        raise ExpertLensError(
            f"a mesh with model={model} was given; {counted(len(devices), 'device')} can be shared out with "
            f"model={', '.join(str(n) for n in range(1, len(devices) + 1) if len(devices) % n == 0)}."
        )
    return auto_mesh(np.array(devices).reshape(-1, model), (DATA, MODEL))


def data_mesh() -> Mesh:
    """Return a one-dimensional mesh of this process's devices, with the axis `data`."""
    return auto_mesh(np.array(jax.local_devices()), (DATA,))


def auto_mesh(devices: np.ndarray, axes: tuple[str, ...]) -> Mesh:
    """Return a mesh whose computations the compiler partitions by itself, as opposed to jax's explicit axes."""
    return Mesh(devices, axes, axis_types=(AxisType.Auto,) * len(axes))


def mesh_of(params: Any) -> Mesh | None:
    """Return the mesh that parameters are laid out on already; None for parameters on one device or the host."""
    for leaf in jax.tree.leaves(params):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding):
            return sharding.mesh
    return None


def num_devices(params: Any) -> int | None:
    """Return over how many devices parameters are laid out, as arrays or as what has their shapes; None while traced.

    >>> import jax.numpy as jnp
    >>> from expertlens_jax import parallel
    >>> parallel.num_devices({"kernel": jnp.ones((2, 3))})
    1
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(params)):
        return None
    mesh = mesh_of(params)
    return 1 if mesh is None else mesh.size


def place(params: Mapping[str, Any], *, all_hosts: bool = False) -> tuple[Mesh, Mapping[str, Any]]:
    """Return a mesh to run a model on, and its parameters there.

    They stay as they are laid out already, or are copied to every device.

    Args:
      params: the `params` collection.
      all_hosts: whether the copies go to the devices of every process of the program, or to this one's only.
    """
    mesh = mesh_of(params)
    if mesh is not None:
        return mesh, params
    mesh = make_mesh() if all_hosts else data_mesh()
    return mesh, replicate(params, mesh)


@functools.cache
def on_each_device(work: Callable, in_axes: tuple[int | None, ...]) -> Callable:
    """Return `work`, compiled, on each of this process's devices at once: each does its own, none waits for another.

    It is `jax.pmap`, made when it is asked for: devices aren't known before jax.distributed starts. Work that crosses
    devices is `jax.shard_map`'s, over a mesh.

    >>> import jax.numpy as jnp
    >>> from expertlens_jax import parallel
    >>> blocks = jnp.ones((len(jax.local_devices()), 3))
    >>> parallel.on_each_device(jnp.sum, (0,))(blocks)[0].item()
    3.0

    Args:
      work: a pure function of arrays, the same object each time, so that it is compiled once.
      in_axes: of each argument, 0 if it is stacked `[devices, ...]`, None if every device takes all of it.
    """
    return jax.pmap(work, in_axes=in_axes, devices=jax.local_devices())


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Lay arrays `[rows, ...]`, the same in every process, out with the rows split over the mesh's `data` axis."""
    return _lay_out(tree, NamedSharding(mesh, PartitionSpec(DATA)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Lay arrays, the same in every process, out whole on every device of the mesh."""
    return _lay_out(tree, NamedSharding(mesh, PartitionSpec()))


def _lay_out(tree: Any, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def from_host(leaf: Any) -> jax.Array:
        values = np.asarray(leaf)  # each process cuts its own devices' parts
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(from_host, tree)


def connect_hosts(
    coordinator: str | None = None, num_hosts: int | None = None, host: int | None = None
) -> Callable[[], None]:
    """Make this process one of a program of several, before anything else is done with jax.

    Such a program, `experts.py`, is launched once on each host:

        import sys
        import expertlens_jax as el

        el.connect_hosts("10.0.0.1:8476", num_hosts=2, host=int(sys.argv[1]))
        model = el.load_model("lenslet-2m")
        expertise = el.find_experts(model, el.load_concepts("facts"), workdir="/shared/facts")

        $ python experts.py 0    # on the host 10.0.0.1
        $ python experts.py 1    # on the other

    On TPU pods, and under Slurm or Open MPI, jax finds out by itself; elsewhere all three arguments are needed.

    Args:
      coordinator: address and port of the first host, "10.0.0.1:8476".
      num_hosts: how many processes there are.
      host: which of them this is, from 0.

    Returns:
      A function to call before an abrupt exit (`os._exit`) that has been explained; otherwise a note is printed that
      another host probably died. An orderly exit calls it by itself.

    Raises:
      ExpertLensError: some arguments but not all; or the others can't be reached.
    """
    given = (coordinator, num_hosts, host)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise ExpertLensError(
            f"coordinator={coordinator}, num_hosts={num_hosts}, host={host} were given; give all three, or none where "
            "jax finds the hosts by itself (TPU pods, Slurm, Open MPI)."
        )
    if host is not None and num_hosts is not None and not 0 <= host < num_hosts:
        raise ExpertLensError(f"host={host} was given; with num_hosts={num_hosts} it goes from 0 to {num_hosts - 1}.")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # for processes without an accelerator
    try:
        jax.distributed.initialize(coordinator, num_hosts, host, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise ExpertLensError(
            f"the hosts could not be connected: {error} On a TPU pod nothing need be given; elsewhere give the "
            "coordinator's address and port, the number of hosts, and each host's own number."
        ) from error
    return _leave_last_words(
        f"Error: host {jax.process_index()} of {jax.process_count()} was stopped, most likely since another host died "
        "or can't be reached: see the lines above, and the other hosts' output. Launch all of them again, and the run "
        "goes on where it was."
    )


def _leave_last_words(message: str) -> Callable[[], None]:
    """Has `message` printed if this process ends before the returned function is called, as an orderly exit does.

    When another host dies, jax aborts this process from a thread of its own, after a page of C++; no Python code
    runs any more. So a small process of another kind waits for the end of a pipe, and speaks if nothing came.
    """
    watch = "import sys, textwrap; sys.stdin.read() or sys.stderr.write(textwrap.fill(sys.argv[1], 100) + chr(10))"
    watcher = subprocess.Popen([sys.executable, "-S", "-c", watch, message], stdin=subprocess.PIPE)

    def take_back() -> None:
        if watcher.poll() is None:
            watcher.communicate(b"an orderly exit")

    atexit.register(take_back)
    return take_back


def is_first_host() -> bool:
    """Return whether this is the process that writes."""
    return jax.process_index() == 0


def from_first_host(work: Callable[[], Any]) -> Any:
    """Return what `work()` gives on the first host, on every host; `work` runs only there, while the others wait.

    Args:
      work: returns what JSON can hold.

    Raises:
      ExpertLensError: `work` raised one; the first host raises it, the others a HostError that quotes it.
    """
    if jax.process_count() == 1:
        return work()
    error, message = None, ""
    if is_first_host():
        try:
            message = json.dumps({"result": work()})
        except ExpertLensError as raised:
            error, message = raised, json.dumps({"error": str(raised)})
    size = multihost_utils.broadcast_one_to_all(np.int32(len(message.encode())))
    letters = np.zeros(int(size), np.uint8)
    letters[: len(message.encode())] = np.frombuffer(message.encode(), np.uint8)
    received = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(letters))).decode())
    if error is not None:
        raise error
    if "error" in received:
        raise HostError(f"the first host stopped: {received['error']}")
    return received["result"]


def from_all_hosts(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "hosts ..."]:
    """Return every host's array, stacked `[hosts, ...]` in their order."""
    return values[None] if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(values))


@contextlib.contextmanager
def explained_host_errors() -> Generator[None]:
    """Turn what jax raises when another process has died into an error that says so.

    Raises:
      HostError: in a program of several processes, a computation that they share failed.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or isinstance(error, ExpertLensError):
            raise
        raise HostError(
            f"host {jax.process_index()} of {jax.process_count()} stops, since work that it shares with the others "
            f"failed, most likely because one of them died: {str(error).splitlines()[0]}. Look at the other hosts' "
            "output; then launch all of them again, and the run goes on where it was."
        ) from error
