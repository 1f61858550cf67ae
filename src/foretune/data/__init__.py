"""From files to checked, split and fingerprinted data.

Functions `audit`, `split` and `fingerprint` are re-exported here under the names of their modules: write
`from foretune.data.split import …` for anything else in those.
"""

from foretune.data.audit import Audit, audit, overlap
from foretune.data.columns import Columns, infer_columns
from foretune.data.fingerprint import fingerprint
from foretune.data.inspect import inspect_data
from foretune.data.labels import LabelEncoding, encode_labels, label_text, label_variants
from foretune.data.read import read_table
from foretune.data.split import split

__all__ = [
    "Audit",
    "Columns",
    "LabelEncoding",
    "audit",
    "encode_labels",
    "fingerprint",
    "infer_columns",
    "inspect_data",
    "label_text",
    "label_variants",
    "overlap",
    "read_table",
    "split",
]
