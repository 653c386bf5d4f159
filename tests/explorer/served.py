"""A live page for tests: a small run, its server in a thread, and requests to it that may be anything."""

import http.client
import json
import pathlib
import threading
import warnings

import numpy as np
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.experts import table
from expertlens_jax.explorer import live

CONCEPTS = ("cat", "dog", "car")
TEXTS = ("site", "hf_module")
SITES = "attn.q, attn.k, attn.v, attn.out, mlp.up, mlp.down"


def live_run(directory: pathlib.Path) -> pathlib.Path:
    """A finished run of three concepts in lenslet-2m, whose numbers are at random: the model isn't run for it."""
    model, number = el.load_model("lenslet-2m"), len(CONCEPTS)
    of_unit = {
        name: ("unit", column.to_numpy(object if name in TEXTS else None)) for name, column in model.units.items()
    }
    of_concept = {"domain": np.full(number, "", object), "base_rate": np.full(number, 2 / 7)}
    of_concept |= {name: np.full(number, 4) for name in ("num_positives", "num_negatives")}
    coordinates = {"concept": np.array(CONCEPTS, object), "unit": model.units.index.to_numpy(), **of_unit}
    coordinates |= {name: ("concept", values) for name, values in of_concept.items()}
    said = model.provenance.attributes() | {"sentences": "mine", "pooling": "max", "sites": SITES}
    directory.mkdir(parents=True)
    run, draws = epath.Path(directory), np.random.default_rng(0)
    names = ("average_precision", "positive_median", "positive_p90", "positive_mean", "negative_mean")
    table.create_table(run, xr.Dataset(coords=coordinates, attrs=said), dict.fromkeys(names, ("concept", "unit")))
    values = {name: draws.normal(0, 0.5, (number, len(model.units))).astype(np.float32) for name in names[1:]}
    values["average_precision"] = draws.beta(6, 6, (number, len(model.units))).astype(np.float32)
    table.write_units(run, 0, values)
    table.write_progress(run, table.Progress(((0, len(model.units)),), (), True))
    (directory / "config.json").write_text(json.dumps({"contrast_sha256": ""}))
    return directory


class Served:
    """A run's page, served at a port of its own until the context ends."""

    def __init__(self, run: pathlib.Path, site: pathlib.Path, *, linked: pathlib.Path | None = None, **options) -> None:
        self._run, self.site, self._linked = run, site, linked
        self._options = {"tokens": False, "experts": 10} | options
        self.expertise, self.model = el.open_expertise(run), el.load_model("lenslet-2m")

    def __enter__(self) -> "Served":
        listening = live.listen("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        if self._linked is not None:  # what leads out of the folder, there before the files are listed
            write_site = live.write_site

            def with_links(*args, **options):
                written = write_site(*args, **options)
                (self.site / "linked.txt").symlink_to(self._linked)
                (self.site / "folder").symlink_to(self._linked.parent, target_is_directory=True)
                return written

            live.write_site = with_links
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", el.ExpertLensWarning)
                self._server = live.prepare(self._run, self.site, listening, "127.0.0.1", **self._options)
        finally:
            if self._linked is not None:
                live.write_site = write_site
        self.token = self._server.token
        self.address = self._server.address
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop()
        self._thread.join()

    def ask(self, method: str, path: str, body=None, *, headers=None, raw: bytes | None = None):
        """Status, body and headers (small letters) of a request for a path as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        connection.request(method, path or "/", content, {"Content-Type": "application/json"} | (headers or {}))
        response = connection.getresponse()
        read = response.read()
        connection.close()
        return response.status, read, {name.lower(): value for name, value in response.getheaders()}

    def get(self, path: str):
        return self.ask("GET", f"/{self.token}{path}")

    def post(self, path: str, body, **more):
        return self.ask("POST", f"/{self.token}{path}", body, **more)

    def open(self, asked):
        """A connection with a text that is being written, and the response to read it from."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", f"/{self.token}/live/write", json.dumps(asked), {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def write(self, asked):
        """The lines of a text that is written."""
        connection, response = self.open(asked)
        lines = [json.loads(line) for line in response.read().splitlines()]
        connection.close()
        assert response.status == 200, lines
        return lines
