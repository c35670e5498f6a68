"""Figures of the paper (Bolton et al., SimMerge) that stand beside ours; 7B checkpoints unless said otherwise."""

from __future__ import annotations

PAIR_GAP_CLOSED = {
    "linear": {"code": 69.0, "math": 61.5, "multilingual": 37.1, "rag": -0.4, "macro": 41.8},
    "slerp": {"code": 53.3, "math": 72.2, "multilingual": 12.9, "rag": 23.0, "macro": 40.4},
    "ties": {"code": 23.6, "math": 83.3, "multilingual": -10.2, "rag": 6.4, "macro": 25.8},
    "simmerge": {"code": 84.2, "math": 94.3, "multilingual": 46.9, "rag": 34.8, "macro": 65.0},
}
"""Table 4."""

CLASS_ACCURACY = {
    "with task code": {"linear": 87.5, "slerp": 82.8, "ties": 68.2},
    "without task code": {"linear": 85.2, "slerp": 80.0, "ties": 64.7},
}
"""Fig. 9 and App. F.1, percent."""

TRAINING_WINS = {"linear": 96, "slerp": 88, "ties": 56}
"""§3.2: which operator was best in the 240 training merges."""

LARGER_GAP_CLOSED = {"code": 69.0, "math": 76.6, "multilingual": 70.0, "rag": 80.3}
"""Fig. 14: SimMerge on three-way merges at 111B."""

MULTIWAY_MEAN = {
    3: {
        "code": {"linear": 0.60, "slerp": 0.57, "ties": 0.51, "simmerge": 0.61},
        "math": {"linear": 0.64, "slerp": 0.70, "ties": 0.71, "simmerge": 0.73},
        "multilingual": {"linear": 0.42, "slerp": 0.36, "ties": 0.34, "simmerge": 0.44},
        "rag": {"linear": 0.20, "slerp": 0.22, "ties": 0.21, "simmerge": 0.24},
    },
    4: {
        "code": {"linear": 0.53, "slerp": 0.51, "ties": 0.53, "simmerge": 0.59},
        "math": {"linear": 0.69, "slerp": 0.68, "ties": 0.71, "simmerge": 0.71},
        "multilingual": {"linear": 0.38, "slerp": 0.33, "ties": 0.29, "simmerge": 0.40},
        "rag": {"linear": 0.18, "slerp": 0.19, "ties": 0.18, "simmerge": 0.20},
    },
}
"""Tables 2 and 3: mean task performance by number of checkpoints."""
