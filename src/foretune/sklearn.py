"""Fine-tuning as a scikit-learn classifier: clone it, search over it, put it into a pipeline."""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from foretune.data.labels import label_text
from foretune.data.split import split
from foretune.data.text import is_blank, is_missing, listed, row_list
from foretune.errors import BackboneError, ConfigError, DataError, ForetuneError, Interrupted

if TYPE_CHECKING:
    from foretune.model import Model

TEXT, LABEL = "text", "label"
# Parameters that are called the same in the recipe.
SHARED = (
    "backbone", "strategy", "epochs", "lr", "batch_tokens", "max_tokens",
    "truncation", "dropout", "layer_decay", "precision", "device", "offline",
)  # fmt: skip


class InputError(ForetuneError, ValueError):
    """Data or parameters of an estimator cannot be used; a ValueError, as scikit-learn expects."""


class TransferClassifier(ClassifierMixin, BaseEstimator):
    """Classify texts with a fine-tuned Transformer.

    The parameters are those of `foretune.Recipe`, but in scikit-learn's spelling: `class_weight` is None,
    "balanced" or label -> weight (1 for labels it does not name), `validation_fraction` is the share of
    the training rows that early stopping watches (0: none), `random_state` is the seed and `options` are
    the strategy's. Fitted: `classes_` (sorted, of the labels' dtype), `n_features_in_` (1: the text) and
    `model_`, a `foretune.Model` in memory; `model_.save(folder)` writes it as an artefact.
    """

    def __init__(
        self,
        backbone: str = "minilm-l6",
        *,
        strategy: str = "full",
        epochs: float | None = None,
        lr: float | None = None,
        batch_tokens: int | None = None,
        max_tokens: int | None = None,
        truncation: str = "head",
        class_weight: str | Mapping[Any, float] | None = None,
        dropout: float = 0.0,
        layer_decay: float | None = None,
        precision: str = "auto",
        device: str = "auto",
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        offline: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone
        self.strategy = strategy
        self.epochs = epochs
        self.lr = lr
        self.batch_tokens = batch_tokens
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.class_weight = class_weight
        self.dropout = dropout
        self.layer_decay = layer_decay
        self.precision = precision
        self.device = device
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.offline = offline
        self.options = options

    def fit(self, X: Any, y: Any) -> TransferClassifier:
        """Fine-tune on texts X (n,), or one column of them (n, 1), and labels y (n,).

        Raises ValueError (`InputError`) or TypeError for what cannot be used, another ForetuneError where
        training fails, KeyboardInterrupt when stopped. The process's random states stay as they were.
        """
        target = _target(y, type(self).__name__)
        texts = _texts(X)
        check_consistent_length(texts, target)
        classes, numbers = _classes(target)
        seed = _seed(self.random_state)
        with _input_errors():
            fraction = _possible_fraction(self.validation_fraction, texts, numbers, seed)
            options = {**self._recipe(classes), "dev_fraction": fraction, "seed": seed}
            names = np.array([label_text(label) for label in classes.tolist()], dtype=object)
            model = _fit(texts, names[numbers], options)
        self.model_, self.classes_, self.n_features_in_ = model, classes, 1
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of every text: (n,), of the dtype of the labels in `fit`."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities (n, classes) float32, columns in the order of `classes_`."""
        check_is_fitted(self, "model_")
        column = {name: number for number, name in enumerate(self.model_.labels)}
        order = [column[label_text(label)] for label in self.classes_.tolist()]
        texts = _texts(X)
        with _input_errors():
            return self.model_.predict_proba(texts)[:, order]

    def _recipe(self, classes: np.ndarray) -> dict[str, Any]:
        """Return the entries of the recipe that the parameters say; numpy's scalars become Python's."""
        values = {name: _plain(getattr(self, name)) for name in SHARED}
        options = {name: _plain(value) for name, value in (self.options or {}).items()}
        weights = _class_weights(self.class_weight, classes)
        return {**values, "options": options, "class_weights": weights, "text": TEXT, "target": LABEL}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # but for a single column, as a ColumnTransformer gives
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return parameters and attributes, the model as the bytes of its artefact."""
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = _pack(state["model_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state back; a device that is missing here is replaced by the best one."""
        if "model_" in state:
            state = {**state, "model_": _unpack(**state["model_"])}
        super().__setstate__(state)


def _texts(X: Any) -> list[str]:
    """Return texts as a list. Raises InputError naming the rows that are none."""
    column = _column(X)
    if not column:
        raise InputError("Found array with 0 sample(s) while a minimum of 1 is required.")
    blank = [row for row, value in enumerate(column) if is_blank(value)]
    if blank:
        raise InputError(f"X has missing (None, NaN) or blank texts: {row_list(blank)}. Drop them.")
    other = [row for row, value in enumerate(column) if not isinstance(value, str)]
    if other:
        kind = type(column[other[0]]).__name__
        raise InputError(f"X must hold texts; found {kind} in {row_list(other)}. Choose the text column.")
    return [str(value) for value in column]


def _column(X: Any) -> list[Any]:
    """Return the values of a 1-d sequence or of a table with one column. Raises InputError, TypeError."""
    if hasattr(X, "toarray"):
        raise TypeError("Sparse data were passed as X; expected a sequence of texts.")
    array = np.asarray(X, dtype=object)
    if array.ndim == 0:
        raise InputError(f"X is a {type(X).__name__}; expected a sequence of texts such as [text].")
    if array.ndim == 2 and array.shape[1] == 0:
        raise InputError(f"Found 0 feature(s) (shape={array.shape}) while a minimum of 1 is required.")
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] > 1):
        raise InputError(f"X has shape {array.shape}; expected (n,) texts or (n, 1). Choose the text column.")
    return array.ravel().tolist()


def _target(y: Any, name: str) -> np.ndarray:
    """Return labels (n,). Raises ValueError where they are missing, continuous or of several columns."""
    if y is None:
        raise InputError(f"This {name} estimator requires y to be passed, but the target y is None.")
    target = column_or_1d(y, warn=True)
    missing = [row for row, value in enumerate(target.tolist()) if is_missing(value)]
    if missing:
        raise InputError(f"Input y contains NaN or None ({row_list(missing)}). Label or drop these rows.")
    check_classification_targets(target)
    return target


def _classes(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes and each row's number among them. Raises InputError for fewer than two."""
    classes, numbers = np.unique(target, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y has only 1 class, {str(classes[0])!r}; a classifier needs at least two classes.")
    return classes, numbers


def _class_weights(wanted: Any, classes: np.ndarray) -> str | dict[str, float]:
    """Return scikit-learn's `class_weight` as the recipe's entry; labels without a weight get 1."""
    if wanted is None or (isinstance(wanted, str) and wanted == "balanced"):
        return "none" if wanted is None else "auto"
    if not isinstance(wanted, Mapping):
        raise InputError(f"class_weight is {wanted!r}; expected None, 'balanced' or {{label: weight}}.")
    labels = classes.tolist()
    unknown = [label for label in wanted if label not in labels]
    if unknown:
        raise InputError(f"class_weight names {unknown[0]!r}, no label in y. Labels: {listed(labels)}.")
    return {label_text(label): float(wanted.get(label, 1.0)) for label in labels}


def _possible_fraction(wanted: float, texts: list[str], numbers: np.ndarray, seed: int) -> float:
    """Return `wanted`, or 0 with a warning where so few rows cannot spare any for validation."""
    if not wanted:
        return 0.0
    try:
        split(texts, numbers, fractions={"validation": float(wanted)}, seed=seed)
    except DataError as error:
        warnings.warn(f"Fitting without validation and early stopping: {error}", UserWarning, stacklevel=3)
        return 0.0
    return float(wanted)


def _seed(random_state: Any) -> int:
    """Return an int as it is, else a number drawn from the generator; None means NumPy's global one."""
    generator = check_random_state(random_state)
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(generator.randint(2**31 - 1))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _input_errors() -> Iterator[None]:
    """Raise errors of data and parameters as InputError, and a stop as KeyboardInterrupt.

    Only the latter ends a grid search: an Exception would count as one failed fit.
    """
    try:
        yield
    except Interrupted as error:
        raise KeyboardInterrupt("Stopped before the fit was finished.") from error
    except (DataError, ConfigError, BackboneError) as error:
        raise InputError(str(error)) from error


@contextmanager
def _same_random_states() -> Iterator[None]:
    """Put the process's random states back at the end: an estimator must not change those of its caller."""
    from foretune.training import randomness

    tensors, values = randomness.capture()
    try:
        yield
    finally:
        randomness.restore(tensors, values)


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="foretune-")


def _fit(texts: list[str], names: np.ndarray, options: dict[str, Any]) -> Model:
    """Fine-tune in a temporary folder and return the model, which stays in memory."""
    import pandas as pd

    from foretune.api import fit

    table = pd.DataFrame({TEXT: texts, LABEL: names})
    with _same_random_states(), _folder() as folder:
        model = fit(table, output=folder, test_fraction=0.0, **options)
    model.path = None
    return model


def _pack(model: Model) -> dict[str, Any]:
    """Return the artefact of a model as a zip in memory, equal for equal models, and where it runs."""
    path, runtime, buffer = model.path, model.runtime, io.BytesIO()
    with _same_random_states(), _folder() as folder, zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(model.save(folder).iterdir()):  # ZipInfo has a fixed date
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    model.path = path
    return {"artefact": buffer.getvalue(), "device": runtime.device.type, "precision": runtime.precision}


def _unpack(artefact: bytes, device: str, precision: str) -> Model:
    """Return the model of `_pack`, on the best device here where its own is missing."""
    from foretune.api import load
    from foretune.training.machine import pick_device

    try:
        pick_device(device)
    except ConfigError:
        device = "auto"
    with _same_random_states(), _folder() as folder:
        zipfile.ZipFile(io.BytesIO(artefact)).extractall(folder)
        model = load(folder, device=device, precision=precision)
    model.path = None
    return model
