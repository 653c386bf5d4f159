"""THINGS, from made files laid out as its release is."""

import zipfile

import numpy as np
import pytest
import scipy.io

from expertlens_jax.data.things import load_things
from expertlens_jax.errors import RatingsError

NAMES = ["aardvark", "air_conditioner", "bat1", "bat2", "Cat"]
TRIPLETS = "0 1 2\n3 4 0\n1 4 2\n"


def write_things(directory, triplets=TRIPLETS, similarity=None, variable="spose_sim", names=NAMES):
    for folder in ("data", "variables", "triplet_dataset"):
        (directory / folder).mkdir(parents=True)
    (directory / "variables" / "unique_id.txt").write_text("\n".join(names) + "\n")
    if similarity is None:
        similarity = np.random.default_rng(0).random((5, 5))
        similarity = (similarity + similarity.T) / 2
    scipy.io.savemat(directory / "data" / "spose_similarity.mat", {variable: similarity})
    (directory / "triplet_dataset" / "validationset.txt").write_text(triplets)
    return similarity


def test_what_the_files_hold(tmp_path):
    similarity = write_things(tmp_path)
    things = load_things(tmp_path)
    assert repr(things) == "Things(5 concepts, 3 triplets)"
    assert things.concepts == ("aardvark", "air conditioner", "bat1", "bat2", "Cat")
    np.testing.assert_allclose(things.similarity.values, similarity, atol=1e-15)
    assert things.similarity.dims == ("concept", "other")
    assert float(things.similarity.sel(concept="bat1", other="Cat")) == pytest.approx(similarity[2, 4])
    assert things.triplets.tolist() == [[0, 1, 2], [3, 4, 0], [1, 4, 2]]
    assert 1 / 3 < things.ceiling < 1
    assert "Hebart" in things.ceiling_source


def test_another_file_of_triplets_also_with_numbers_written_as_matlab_does(tmp_path):
    write_things(tmp_path)
    (tmp_path / "triplet_dataset" / "testset1.txt").write_text("4\t3\t1\n")
    assert load_things(tmp_path, triplets="testset1.txt").triplets.tolist() == [[4, 3, 1]]


def test_ratings_of_the_concepts_that_are_objects(tmp_path):
    similarity = write_things(tmp_path)
    ratings = load_things(tmp_path).ratings(["cat", "aardvark", "dog", "bat2"])
    assert ratings.name == "things"
    assert ratings.pairs == (("aardvark", "bat2"), ("aardvark", "cat"), ("bat2", "cat"))
    np.testing.assert_allclose(ratings.scores, [similarity[0, 3], similarity[0, 4], similarity[3, 4]])
    assert ratings.ceiling is None
    with pytest.raises(RatingsError, match="1 of the 2 concepts are among the 5 objects"):
        load_things(tmp_path).ratings(["cat", "dog"])


def test_no_directory(tmp_path):
    with pytest.raises(RatingsError, match="no directory .*nowhere"):
        load_things(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["unique_id.txt", "spose_similarity.mat", "validationset.txt"])
def test_a_missing_file_is_named_with_where_to_get_it(tmp_path, name):
    write_things(tmp_path)
    next(tmp_path.rglob(name)).unlink()
    with pytest.raises(RatingsError, match=rf"no {name} in .*get it from https://osf.io/f5rn6"):
        load_things(tmp_path)


def test_a_file_still_in_its_zip_is_found_out(tmp_path):
    write_things(tmp_path)
    (tmp_path / "triplet_dataset" / "validationset.txt").unlink()
    with zipfile.ZipFile(tmp_path / "triplet_dataset.zip", "w") as archive:
        archive.writestr("triplet_dataset/validationset.txt", TRIPLETS)
    with pytest.raises(RatingsError, match=r"it is in .*triplet_dataset.zip: unzip that"):
        load_things(tmp_path)


def test_two_copies_are_refused(tmp_path):
    write_things(tmp_path / "one")
    write_things(tmp_path / "two")
    with pytest.raises(RatingsError, match=r"unique_id.txt is in .* more than once: .*one/.*two/.*of one copy"):
        load_things(tmp_path)


@pytest.mark.parametrize(
    ("triplets", "message"),
    [
        ("0 1 2\n0 1 5\n", r"validationset.txt: the 2. triplet, \[0, 1, 5\], must lie in 0 ... 4"),
        ("0 1 -1\n", r"must lie in 0 ... 4"),
        ("0 1 1\n", r"the 1. triplet, \[0, 1, 1\], must be three different ones"),
        ("0 1\n", "wanted three whole numbers a line, .* not 2"),
        ("0 1 2\n0 1\n", "not three whole numbers a line"),
        ("0 1 cat\n", "not three whole numbers a line"),
    ],
)
def test_triplets_that_are_none(tmp_path, triplets, message):
    write_things(tmp_path, triplets=triplets)
    with pytest.raises(RatingsError, match=message):
        load_things(tmp_path)


def test_an_empty_file_of_triplets(tmp_path):
    write_things(tmp_path, triplets="")
    with pytest.raises(RatingsError, match=r"validationset.txt: it holds no triplets"):
        load_things(tmp_path)


def test_similarities_that_do_not_fit(tmp_path):
    write_things(tmp_path / "a", variable="rdm")
    with pytest.raises(RatingsError, match="wanted the variable spose_sim, but it holds rdm"):
        load_things(tmp_path / "a")
    write_things(tmp_path / "b", similarity=np.eye(4))
    with pytest.raises(RatingsError, match=r"spose_sim is \[4, 4\], but unique_id.txt names 5 objects"):
        load_things(tmp_path / "b")
    write_things(tmp_path / "c", similarity=np.arange(25.0).reshape(5, 5))
    with pytest.raises(RatingsError, match="must be symmetric and finite"):
        load_things(tmp_path / "c")
    write_things(tmp_path / "d")
    (tmp_path / "d" / "data" / "spose_similarity.mat").write_text("<html>")
    with pytest.raises(RatingsError, match=r"spose_similarity.mat: not a MATLAB file"):
        load_things(tmp_path / "d")
    write_things(tmp_path / "e", names=["cat", "cat", "c", "d", "e"])
    with pytest.raises(RatingsError, match="a name is there twice"):
        load_things(tmp_path / "e")
