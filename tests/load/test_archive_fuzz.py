"""Exported programs with random changes in their JSON: whatever comes, it is a loaded model or one of our errors."""

import copy
import json
import random

import pytest

from edgeprune.errors import EdgepruneError
from edgeprune.load import load_model
from tests.load import archive_forging as forging

VALUES = [None, 0, -1, 1 << 70, 3.5, True, "", "x", [], {}, [1], {"as_int": 1}, 1e308]
VALUES += [
    f"torch.ops.aten.{op}" for op in ("relu.default", "add.Tensor", "linear.default", "lstm.input", "item.default")
]


def list_places(document, place=()):
    """Every place of a JSON document, as a tuple of keys; metadata is left alone."""
    children = []
    if isinstance(document, dict):
        children = [(key, value) for key, value in document.items() if key != "metadata"]
    elif isinstance(document, list):
        children = list(enumerate(document))
    return [(*place, key) for key, _ in children] + [
        deeper for key, value in children for deeper in list_places(value, (*place, key))
    ]


def get_place(document, place):
    for key in place:
        document = document[key]
    return document


def mutate(document, chance):
    """One change: a value replaced, removed, or put in place of another."""
    places = list_places(document)
    place = chance.choice(places)
    parent, key = get_place(document, place[:-1]), place[-1]
    kind = chance.random()
    if kind < 0.7:
        parent[key] = copy.deepcopy(chance.choice(VALUES))
    elif kind < 0.85:
        del parent[key]
    else:
        parent[key] = copy.deepcopy(get_place(document, chance.choice(places)))


def check_mutants(name, count, zoo_archive, path):
    chance = random.Random(11)
    entries = forging.unpack(zoo_archive(name))
    refused = 0
    for _ in range(count):
        part = chance.choice([forging.PROGRAM, forging.PROGRAM, forging.PROGRAM, forging.WEIGHTS])
        document = json.loads(entries[part])
        mutate(document, chance)
        path.write_bytes(forging.pack({**entries, part: json.dumps(document).encode()}))
        try:
            load_model(path)
        except EdgepruneError as error:
            refused += error.exit_code in (2, 5, 7)
    assert refused > count // 2


def test_a_few_mutants(zoo_archive, tmp_path):
    check_mutants("depthwise_multiplier", 20, zoo_archive, tmp_path / "model.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depthwise_multiplier", "eegnet", "lstm_last_hidden"])
def test_many_mutants(name, zoo_archive, tmp_path):
    check_mutants(name, 200, zoo_archive, tmp_path / "model.pt")
