"""The estimator inside scikit-learn's tools: searches, pipelines, ensembles, several processes."""

from __future__ import annotations

import io

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


@pytest.fixture(scope="module")
def labelled(toy):
    texts, numbers = toy()
    return texts, np.array(["money", "fault"])[numbers]


def test_cross_validation(make, labelled):
    scores = cross_val_score(make(epochs=1), *labelled, cv=2, scoring="roc_auc")
    assert scores.shape == (2,) and np.isfinite(scores).all()
    probabilities = cross_val_predict(make(epochs=1), *labelled, cv=2, method="predict_proba")
    assert probabilities.shape == (48, 2)


def test_a_search_over_parameters(make, toy):
    search = GridSearchCV(make(), {"lr": [1e-7, 0.002], "epochs": [8]}, cv=2).fit(*toy(rows=96))
    assert search.best_params_ == {"lr": 0.002, "epochs": 8}
    assert search.score(*toy(seed=1)) > 0.7


@pytest.mark.slow
def test_several_processes_give_what_one_gives(make, labelled):
    search = {"param_grid": {"lr": [0.001, 0.005]}, "cv": 2, "refit": False, "scoring": "neg_log_loss"}
    alone = GridSearchCV(make(epochs=1), **search).fit(*labelled)
    both = GridSearchCV(make(epochs=1), **search, n_jobs=2).fit(*labelled)
    np.testing.assert_array_equal(both.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


def test_fitted_estimators_come_back_from_other_processes(make, labelled):
    results = cross_validate(make(epochs=1), *labelled, cv=2, n_jobs=2, return_estimator=True)
    assert [estimator.predict(labelled[0]).shape for estimator in results["estimator"]] == [(48,)] * 2


def test_a_fitted_estimator_survives_joblib(fitted, labelled):
    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    buffer.seek(0)
    twin = joblib.load(buffer)
    np.testing.assert_array_equal(twin.predict_proba(labelled[0]), fitted.predict_proba(labelled[0]))
    assert joblib.hash(fitted) == joblib.hash(fitted)


def test_a_pipeline_with_a_step_on_texts(make, labelled):
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, make(epochs=1)).set_params(transferclassifier__epochs=2)
    assert pipeline.fit(*labelled).predict(["MY CARD"]).shape == (1,)
    assert pipeline.classes_.tolist() == ["fault", "money"]


@pytest.mark.parametrize("columns", ["text", ["text"]])
@pytest.mark.parametrize("output", ["default", "pandas"])
def test_a_column_transformer_in_front(make, labelled, columns, output):
    table = pd.DataFrame({"number": range(48), "text": labelled[0]})
    as_column = FunctionTransformer(
        lambda x: pd.DataFrame({"text": np.asarray(x).ravel()}, index=table.index)
    )
    chooser = ColumnTransformer([("text", as_column, columns)]).set_output(transform=output)
    pipeline = make_pipeline(chooser, make(epochs=1)).fit(table, labelled[1])
    assert pipeline.predict(table).shape == (48,)


def test_beside_another_model_in_an_ensemble(make, labelled):
    linear = make_pipeline(TfidfVectorizer(), LogisticRegression())
    voting = VotingClassifier([("deep", make(epochs=2)), ("linear", linear)], voting="soft").fit(*labelled)
    assert voting.score(*labelled) > 0.7


def test_calibration_on_top(make, labelled):
    calibrated = CalibratedClassifierCV(make(epochs=2), cv=2).fit(*labelled)
    assert calibrated.predict_proba(labelled[0]).shape == (48, 2)


def test_probabilities_suit_the_metrics_for_several_classes(make, toy):
    texts, numbers = toy(rows=45, classes=3)
    probabilities = make(epochs=1).fit(texts, numbers).predict_proba(texts)
    assert np.isfinite(log_loss(numbers, probabilities))
    assert 0 <= roc_auc_score(numbers, probabilities, multi_class="ovr") <= 1
