"""``python -m tests.reporting.interval_coverage``: how often intervals of a difference hold the true one.

Two networks see the same n images. Tables of who was right where are drawn from known chances; an interval of 95 %
should hold the true difference in 95 % of them. Beside Tango's score interval, which the package uses, stand Newcombe's
for pairs (Statistics in Medicine 17:2635-2650, method 10, with the corrected correlation) and that of independent
samples (Statistics in Medicine 17:873-890, method 10). All are written anew here, over whole arrays of tables.
"""

from __future__ import annotations

import sys

import numpy as np

__all__ = ["CASES", "coverage", "independent", "newcombe", "tables", "tango_holds"]

Z = 1.959963984540054
CASES = (  # chances that both, only the first, only the second are right
    (0.80, 0.05, 0.03),
    (0.75, 0.10, 0.07),
    (0.60, 0.10, 0.20),
    (0.90, 0.02, 0.01),
    (0.93, 0.03, 0.03),
    (0.95, 0.004, 0.004),
)

Interval = tuple[np.ndarray, np.ndarray]


def tables(n: int, chances: tuple[float, float, float], draws: int, seed: int) -> np.ndarray:
    """Draw tables: int64 ``(draws, 4)``, images that both, only the first, only the second, and neither got right."""
    return np.random.default_rng(seed).multinomial(n, [*chances, 1 - sum(chances)], size=draws)


def _wilson(successes: np.ndarray, n: np.ndarray) -> Interval:
    share = successes / n
    middle, wide = share + Z**2 / (2 * n), Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return (middle - wide) / (1 + Z**2 / n), (middle + wide) / (1 + Z**2 / n)


def _squares_and_adds(drawn: np.ndarray, correlation: np.ndarray | float) -> Interval:
    both, first, second, _ = drawn.T
    n = drawn.sum(axis=1)
    (low_a, high_a), (low_b, high_b) = _wilson(both + first, n), _wilson(both + second, n)
    a, b = (both + first) / n, (both + second) / n
    below = (a - low_a) ** 2 - 2 * correlation * (a - low_a) * (high_b - b) + (high_b - b) ** 2
    above = (b - low_b) ** 2 - 2 * correlation * (b - low_b) * (high_a - a) + (high_a - a) ** 2
    return a - b - np.sqrt(below), a - b + np.sqrt(above)


def newcombe(drawn: np.ndarray) -> Interval:
    """Return Newcombe's interval for pairs."""
    both, first, second, neither = drawn.T.astype(float)
    half = drawn.sum(axis=1) / 2
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    together = both * neither - first * second
    corrected = np.where(together > half, together - half, np.minimum(together, 0.0))
    return _squares_and_adds(drawn, np.where(product > 0, corrected / np.sqrt(np.maximum(product, 1.0)), 0.0))


def independent(drawn: np.ndarray) -> Interval:
    """Return Newcombe's interval of independent samples."""
    return _squares_and_adds(drawn, 0.0)


def tango_holds(drawn: np.ndarray, difference: float) -> np.ndarray:
    """Return in which tables Tango's score test does not reject a difference."""
    _, first, second, _ = drawn.T
    n = drawn.sum(axis=1)
    slope = (2 * n - first + second) * difference - first - second
    root = np.sqrt(np.maximum(slope**2 + 8 * n * second * difference * (1 - difference), 0.0))
    variance = n * ((root - slope) / (2 * n) + difference * (1 - difference))
    return (first - second - n * difference) ** 2 <= Z**2 * variance


def coverage(n: int, chances: tuple[float, float, float], draws: int = 40_000, seed: int = 0) -> dict[str, float]:
    """Return by interval the share of drawn tables in which it holds the true difference."""
    drawn, truth = tables(n, chances, draws, seed), chances[1] - chances[2]
    held = {"Tango": tango_holds(drawn, truth)}
    for name, (low, high) in (("Newcombe, pairs", newcombe(drawn)), ("independent", independent(drawn))):
        held[name] = (low <= truth) & (truth <= high)
    return {name: float(flags.mean()) for name, flags in held.items()}


def main() -> None:
    sys.stdout.write("| n | both | only first | only second | Tango | Newcombe, pairs | independent |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for n in (100, 500, 2500):
        for chances in CASES:
            shares = " | ".join(f"{100 * share:.1f}" for share in coverage(n, chances).values())
            sys.stdout.write(f"| {n} | {' | '.join(f'{100 * chance:g}' for chance in chances)} | {shares} |\n")


if __name__ == "__main__":
    main()
