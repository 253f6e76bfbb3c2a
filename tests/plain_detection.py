"""Detection by rule and the features of the net as first written: plain, slow, and what the fast ways must equal."""

from __future__ import annotations

import numpy as np

from fixpix_cli.classical import STAGES
from fixpix_cli.normalise.features import half_sigma, level_feature, pack, ratio_feature, step_of
from fixpix_cli.planes import same_phase
from fixpix_cli.tables import RULE_TABLES


def neighbours_of(samples, cfa, position, offset):
    """(h, w) values at an offset from every pixel of a tile position; mirrored beyond the edge."""
    (height, width), (pr, pc) = samples.shape, cfa.period
    rows = same_phase(-6 * pr, height + 6 * pr, height, pr)
    cols = same_phase(-6 * pc, width + 6 * pc, width, pc)
    r = np.arange(position[0], height, pr) + offset[0] + 6 * pr
    c = np.arange(position[1], width, pc) + offset[1] + 6 * pc
    return samples[np.ix_(rows[r], cols[c])]


def ratios(seen, stage, others=None, fallback=None):
    """`classical._ratios`, every pixel through the table."""
    count, depth, allowed = STAGES[stage]
    (pr, pc), table = seen.cfa.period, RULE_TABLES[stage]
    out = np.empty(seen.samples.shape, np.float32)
    for r, c in seen.cfa.positions:
        pixel = seen.samples[r::pr, c::pc]
        if not pixel.size:
            continue
        source = seen.samples if others is None else others
        around = np.stack([neighbours_of(source, seen.cfa, (r, c), o) for o in seen.cfa.nearest(r, c, count)])
        missing = np.isnan(around)
        low = np.sort(np.where(missing, np.inf, around), axis=0)[depth - 1]
        high = -np.sort(np.where(missing, np.inf, -around), axis=0)[depth - 1]
        with np.errstate(invalid="ignore"):
            sigma = seen.sigma((high + low) / 2, (r, c))
            common = 0.5 * np.maximum(high - low, 0) + sigma
            bright = (pixel - high - allowed * sigma) / (common + 0.3 * np.abs(high))
            dark = (low - pixel - allowed * sigma) / (common + 0.3 * np.abs(low))
            t = np.maximum(bright, dark)
        t[~(np.isfinite(high) & np.isfinite(low))] = np.nan
        edges, values = (np.asarray(a, np.float32) for a in (RULE_TABLES["edges"], table))
        answer = np.interp(t, edges, values).astype(np.float32)
        if fallback is not None:
            answer = np.where(np.isnan(answer), fallback[r::pr, c::pc], answer)
        answer[np.isnan(answer)] = -12
        answer[~np.isfinite(pixel)] = -np.inf
        out[r::pr, c::pc] = answer
    return out


def features(seen, rows, cols):
    """`normalise.features.Seen.features` on whole arrays of the mosaic."""
    levels, step = seen.levels, step_of(seen.levels.cfa)
    (height, width), (pr, pc) = levels.samples.shape, levels.cfa.period
    (top, left) = seen.phase
    r = same_phase(rows[0] - top - step, rows[1] - top + step, height, pr)
    c = same_phase(cols[0] - left - step, cols[1] - left + step, width, pc)
    p = levels.samples[np.ix_(r, c)]
    p = np.where(np.isnan(p), np.float32(np.median(list(levels.middle.values()))), p)
    inner = np.ix_(r[step:-step], c[step:-step])
    tiled = np.ix_(r[step:-step] % pr, c[step:-step] % pc)
    floor, middle = (
        np.array([[t[i, j] for j in range(pc)] for i in range(pr)], np.float32)[tiled]
        for t in (levels.floor, levels.middle)
    )
    m, up, down = slice(step, -step), slice(None, -2 * step), slice(2 * step, None)
    x, left_, right = p[m, m], p[m, up], p[m, down]
    total = p[:, up] + p[:, m] + p[:, down]
    eight = [p[a, b] for a in (up, m, down) for b in (up, m, down) if a is not m or b is not m]
    greatest, least = np.max(eight, axis=0), np.min(eight, axis=0)
    mean = (total[up] + total[down] + left_ + right - greatest - least) / np.float32(6)
    scale, half = half_sigma(levels, mean + floor), np.float32(0.5)
    return pack(
        level_feature(x, middle),
        np.arcsinh((x - mean) * scale) * half,
        np.arcsinh((x - greatest) * scale) * half,
        np.arcsinh((least - x) * scale) * half,
        ratio_feature(seen.rules[inner]),
    )


def rate(found, clear):
    """`classical.rate_of` with NumPy's own histogram of everything at once."""
    lowest, share = max(clear, -20.0), 0.01
    finite = found[np.isfinite(found)]
    kept = np.clip(finite[finite >= clear], lowest, 20.0)
    counts, edges = np.histogram(kept, bins=round((20.0 - lowest) * 24), range=(lowest, 20.0))
    for _ in range(200):
        odds = (edges[:-1] + edges[1:]) / 2 + np.log(share / (1 - share))
        update = min(max(float((counts / (1 + np.exp(-odds))).sum() / len(finite)), 1e-6), 0.95)
        if abs(update - share) < 1e-3 * share:
            break
        share = update
    return share


def around(p, ok, step, reach):
    """`second._around`, neighbour by neighbour."""
    edge = 2 * step
    height, width = p.shape[0] - 2 * edge, p.shape[1] - 2 * edge
    total, count = np.zeros((2, height, width), np.float32)
    greatest, least = np.full((height, width), -np.inf, np.float32), np.full((height, width), np.inf, np.float32)
    for dr in range(-reach, reach + 1):
        for dc in range(-reach, reach + 1):
            if dr or dc:
                top, left = edge + dr * step, edge + dc * step
                there = (slice(top, top + height), slice(left, left + width))
                value, known = p[there], ok[there]
                total += np.where(known, value, np.float32(0))
                count += known
                np.maximum(greatest, value, out=greatest, where=known)
                np.minimum(least, value, out=least, where=known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count, count, greatest, least
