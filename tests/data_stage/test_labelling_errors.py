"""Confident learning: beside cleanlab on the same probabilities, and on real labels gone wrong."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modelwright.cli import main
from modelwright.data.labelling import suspicion
from modelwright.data.labelling.errors import confident_joint, label_errors
from modelwright.data.labelling.features import hashed_ngrams, image_features
from modelwright.data.labelling.out_of_fold import out_of_fold
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError


def noisy(rows: int, labels: int, wrong: float, seed: int = 0):
    """Given labels, the truth, and probabilities that mostly know it."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, labels, rows)
    flip = generator.random(rows) < wrong
    given = np.where(flip, (truth + generator.integers(1, labels, rows)) % labels, truth)
    scores = generator.normal(0, 1, (rows, labels))
    scores[np.arange(rows), truth] += 2.5
    shares = np.exp(scores)
    return given, truth, shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("labels", "wrong"), [(2, 0.05), (3, 0.2), (10, 0.1)])
def test_the_list_is_cleanlabs(labels, wrong):
    peer = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed")
    given, truth, shares = noisy(3000, labels, wrong)
    ours = set(label_errors(given, shares).tolist())
    theirs = set(np.flatnonzero(peer.find_label_issues(given, shares, n_jobs=1)).tolist())
    # The joint is rounded to whole rows elsewhere: a row more or less in a pair of labels.
    assert len(ours ^ theirs) <= max(2, 0.03 * len(theirs))
    planted = set(np.flatnonzero(given != truth).tolist())
    assert len(ours & planted) / len(planted) > 0.6


def test_the_joint_is_cleanlabs():
    count = pytest.importorskip("cleanlab.count", reason="cleanlab is not installed")
    given, _, shares = noisy(2000, 4, 0.15)
    theirs = count.compute_confident_joint(given, shares)
    assert np.abs(confident_joint(given, shares) - theirs).max() <= 1.0


@given(
    st.integers(2, 5).flatmap(
        lambda k: st.lists(
            st.tuples(st.integers(0, k - 1), st.lists(st.floats(0.01, 1), min_size=k, max_size=k)),
            max_size=60,
        ).map(lambda rows: (k, rows))
    )
)
@settings(max_examples=150, deadline=None)
def test_any_table_gives_a_sound_list(drawn):
    labels, rows = drawn
    given = np.array([g for g, _ in rows], dtype=np.int64)
    shares = np.array([p for _, p in rows]).reshape(len(rows), labels)
    shares = shares / shares.sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listed = label_errors(given, shares)
    assert len(set(listed.tolist())) == len(listed)
    best = shares.argmax(axis=1)
    assert (best[listed] != given[listed]).all()
    margin = shares[listed].max(axis=1) - shares[listed, given[listed]]
    assert (np.diff(margin) <= 1e-12).all()
    for label in set(given.tolist()):  # every label keeps a row
        assert (given[listed] == label).sum() < (given == label).sum()
    joint = confident_joint(given, shares)
    assert joint.sum(axis=1) == pytest.approx(np.bincount(given, minlength=labels))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p * 2, "add up to 1"),
        (lambda p: np.where(p == p[0, 0], np.nan, p), "row 0"),
        (lambda p: p[:-1], "shape"),
    ],
)
def test_what_are_no_probabilities_is_one_line(change, said):
    given, _, shares = noisy(20, 3, 0.1)
    with pytest.raises(ModelwrightError, match=said):
        label_errors(given, change(shares))
    with pytest.raises(ModelwrightError, match="outside 0 .. 2"):
        label_errors(given + 1, shares)


def test_folds_are_held_out_and_fitted_as_one_by_one():
    """The folds that are fitted together end where scikit-learn ends with each alone."""
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    generator = np.random.default_rng(0)
    points = generator.normal(size=(300, 6)).astype(np.float32)
    given = (points[:, 0] + 0.5 * generator.normal(size=300) > 0).astype(np.int64)
    given[:40] = 2
    folds = np.arange(300) % 3
    ours = out_of_fold(points, given, 3, folds, strength=0.5)
    for fold in range(3):
        model = linear.LogisticRegression(C=0.5, tol=1e-8, max_iter=1000)
        model.fit(points[folds != fold], given[folds != fold])
        theirs = model.predict_proba(points[folds == fold])
        assert ours[folds == fold] == pytest.approx(theirs, abs=2e-3)
    with pytest.raises(ModelwrightError, match="at least 2 folds"):
        out_of_fold(points, given, 3, folds * 0)


@given(st.lists(st.text(max_size=30), max_size=8))
@settings(max_examples=60, deadline=None)
def test_rows_of_words_have_length_one_or_none(texts):
    found = hashed_ngrams(texts, bits=10)
    assert found.offsets[0] == 0 and found.offsets[-1] == len(found.columns)
    for i in range(len(texts)):
        values = found.values[found.offsets[i] : found.offsets[i + 1]]
        assert not len(values) or float((values**2).sum()) == pytest.approx(1, abs=1e-4)


def test_image_features_take_any_size_and_are_the_same_each_time():
    generator = np.random.default_rng(0)
    sizes = [(40, 30, 3), (32, 32, 3), (9, 70, 3), (64, 64)]
    images = [generator.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    one = image_features(images)
    assert np.isfinite(one).all() and len(one) == 4
    assert (one == image_features(images)).all()
    assert image_features([image[:4, :4] for image in images[:2]]).shape == (2, 48)


def planted(rows: list[dict], share: float, seed: int = 0) -> tuple[list[dict], set[str]]:
    """The rows with a share of their labels replaced, and the ids of those."""
    generator = np.random.default_rng(seed)
    labels = sorted({row["label"] for row in rows})
    wrong = generator.permutation(len(rows))[: round(share * len(rows))]
    changed = [dict(row) for row in rows]
    for i in wrong:
        others = [label for label in labels if label != rows[i]["label"]]
        changed[i]["label"] = others[generator.integers(len(others))]
    return changed, {rows[i]["id"] for i in wrong}


def test_planted_errors_in_reviews_are_found_by_the_command(data, tmp_path, capsys):
    rows = [
        {"id": r["id"], "text": r["text"], "label": r["label"]}
        for r, _ in zip(read_rows("imdb", path=data("imdb")), range(1500), strict=False)
    ]
    rows, wrong = planted(rows, 0.05)
    source, out = tmp_path / "reviews.jsonl", tmp_path / "errors.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "errors", str(source), "--label", "label", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    listed = [json.loads(line) for line in out.read_text().splitlines()]
    hits = [s for s in listed if s["id"] in wrong]
    assert f"{len(listed)} of 1500 labels look wrong" in said
    assert f"{listed[0]['id']}: given {listed[0]['given']}" in said
    assert len(hits) / len(wrong) > 0.6
    assert len(hits) / len(listed) > 5 * 0.05  # at least five times as good as drawing rows
    margins = [s["suggested_probability"] - s["given_probability"] for s in listed]
    assert margins == sorted(margins, reverse=True)


def test_planted_errors_in_digits_are_found_and_so_are_those_of_a_folder(data, tmp_path):
    rows = [dict(r) for r, _ in zip(read_rows("mnist", path=data("mnist")), range(1200),
                                    strict=False)]  # fmt: skip
    changed, wrong = planted(rows, 0.05)
    for row in changed:
        folder = tmp_path / row["label"]
        folder.mkdir(exist_ok=True)
        Image.fromarray(row["pixels"]).save(folder / f"{row['id'].replace(':', '-')}.png")
    found = suspicion.examine(str(tmp_path))
    names = {s.id.split("/")[1].removesuffix(".png").replace("-", ":") for s in found.suspects}
    assert len(names & wrong) / len(wrong) > 0.8
    assert len(names & wrong) / len(names) > 0.4


def test_a_models_own_probabilities_are_taken_by_id(tmp_path, capsys):
    rows = [{"id": f"r{i}", "x": i, "label": "ab"[i % 2]} for i in range(40)]
    rows[4]["label"] = "b"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    shares = [
        {"id": r["id"], "probabilities": {"ab"[i % 2]: 0.9, "ba"[i % 2]: 0.1}}
        for i, r in enumerate(rows)
    ]
    name = tmp_path / "p.jsonl"
    name.write_text("".join(json.dumps(s) + "\n" for s in reversed(shares)))
    line = ["data", "errors", str(tmp_path / "t.jsonl"), "--column", "x"]
    assert main([*line, "--probabilities", str(name)]) == 0
    assert "r4: given b (10.0%), suggested a (90.0%)" in capsys.readouterr().out
    name.write_text(json.dumps(shares[0]) + "\n")
    assert main([*line, "--probabilities", str(name)]) == 2
    assert "39 of 40 rows have no probabilities, such as 'r1'" in capsys.readouterr().err
    assert main(line) == 2
    assert "--probabilities" in capsys.readouterr().err
