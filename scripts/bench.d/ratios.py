# Ratios of what was measured in pairs: the median, how sure it is, and how often it was a win.
#
# The two blocks of a pair were measured one after the other, so what slows the machine down for a while slows both and
# leaves their ratio alone; that is why the median is taken of ratios and not of figures. The interval is the percentile
# bootstrap's with a fixed seed. With three pairs it is no more than the smallest and the largest ratio. It knows no
# workload and no file.

import random
import statistics

RESAMPLES = 2000
SEED = 20240229
CONFIDENCE = 0.95


def of_pairs(pairs, higher_is_better):
    """{median, low, high, wins, pairs} of first over second; None without a pair in which both are above zero."""
    found = [first / second for first, second in pairs if first and second and first > 0 and second > 0]
    if not found:
        return None
    chance = random.Random(SEED)
    medians = sorted(statistics.median(chance.choices(found, k=len(found))) for _ in range(RESAMPLES))
    cut = int(RESAMPLES * (1 - CONFIDENCE) / 2)
    wins = sum(ratio > 1 if higher_is_better else ratio < 1 for ratio in found)
    return {"median": statistics.median(found), "low": medians[cut], "high": medians[-1 - cut], "wins": wins,
            "pairs": len(found)}
