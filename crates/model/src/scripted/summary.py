import csv
import os
import statistics
import warnings
from datetime import datetime

try:
    import pandas as pd
except ImportError:
    pd = None
try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m", "%Y/%m/%d", "%m/%d/%Y", "%d.%m.%Y")
SERIES_MAX = 8
BARS_MAX = 30


def as_number(text):
    try:
        return float(text)
    except ValueError:
        return None


def as_date(text):
    for form in FORMATS:
        try:
            return datetime.strptime(text.strip(), form)
        except ValueError:
            pass
    return None


def mostly(values):
    return bool(values) and sum(value is not None for value in values) >= 0.9 * len(values)


def read(path):
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t" if path.lower().endswith(".tsv") else ","))
    rows = [row for row in rows if row]
    if not rows:
        return [], {}
    names = [name.strip() or f"column {number}" for number, name in enumerate(rows[0], 1)]
    for number, name in enumerate(names):
        if name in names[:number]:
            names[number] = f"{name} ({number + 1})"
    cells = [(row + [""] * len(names))[: len(names)] for row in rows[1:]]
    return names, {name: [row[number] for row in cells] for number, name in enumerate(names)}


def numeric_columns(columns):
    numeric = {}
    for name, cells in columns.items():
        values = [as_number(cell) for cell in cells if cell.strip()]
        if mostly(values):
            numeric[name] = [as_number(cell) for cell in cells]
    return numeric


def describe(path, names, columns, numeric):
    if pd is not None:
        frame = pd.read_csv(path, sep="\t" if path.lower().endswith(".tsv") else ",", encoding_errors="replace")
        with pd.option_context("display.width", 120, "display.max_columns", 20):
            print(frame.head().to_string())
            print()
            print(frame.describe(include="all").to_string())
            print()
        print("missing values:", {name: int(count) for name, count in frame.isna().sum().items() if count} or "none")
        return
    for name in names:
        if name in numeric:
            values = [value for value in numeric[name] if value is not None]
            spread = statistics.pstdev(values)
            print(
                f"{name}: count {len(values)}, min {min(values):g}, mean {statistics.fmean(values):g}, "
                f"median {statistics.median(values):g}, max {max(values):g}, std {spread:g}"
            )
        else:
            cells = [cell for cell in columns[name] if cell.strip()]
            print(f"{name}: count {len(cells)}, distinct {len(set(cells))}, first {cells[:1]}")


def plan(names, columns, numeric):
    first = names[0]
    dates = [as_date(cell) for cell in columns[first]]
    series = [name for name in numeric if name != first][:SERIES_MAX]
    if mostly(dates) and series:
        order = sorted((date, row) for row, date in enumerate(dates) if date is not None)
        return "line", [date for date, _ in order], {name: [numeric[name][row] for _, row in order] for name in series}
    if first in numeric and first.lower() in ("year", "month", "day", "time", "date", "t") and series:
        order = sorted((x, row) for row, x in enumerate(numeric[first]) if x is not None)
        return "line", [x for x, _ in order], {name: [numeric[name][row] for _, row in order] for name in series}
    if first not in numeric and series and len(columns[first]) <= BARS_MAX:
        return "bar", columns[first], {series[0]: numeric[series[0]]}
    if numeric:
        return "histogram", None, {name: numeric[name] for name in list(numeric)[:SERIES_MAX]}
    counts = {}
    for cell in columns[first]:
        counts[cell] = counts.get(cell, 0) + 1
    top = sorted(counts, key=counts.get, reverse=True)[:BARS_MAX]
    return "bar", top, {f"rows per {first}": [counts[cell] for cell in top]}


def draw(kind, x, series, title, xlabel, target):
    if kind == "histogram":
        figure, axes = plt.subplots(len(series), 1, figsize=(8, 2.6 * len(series)), squeeze=False)
        for axis, (name, values) in zip(axes[:, 0], series.items()):
            axis.hist([value for value in values if value is not None], bins=20)
            axis.set_xlabel(name)
            axis.set_ylabel("rows")
        figure.suptitle(title)
    else:
        figure, axis = plt.subplots(figsize=(9, 4.5))
        for name, values in series.items():
            values = [float("nan") if value is None else value for value in values]
            if kind == "line":
                axis.plot(x, values, marker="." if len(x) <= 60 else None, label=name)
            else:
                axis.bar(range(len(x)), values, label=name)
        if kind == "bar":
            axis.set_xticks(range(len(x)), x, rotation=45, ha="right")
        else:
            figure.autofmt_xdate()
        axis.set_xlabel(xlabel)
        axis.set_title(title)
        axis.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    plt.close(figure)


def summarize(path, name):
    names, columns = read(path)
    if not names:
        print(f"{name}: the file is empty")
        return
    rows = len(columns[names[0]])
    print(f"{name}: {rows} rows, {len(names)} columns: {', '.join(names)}")
    print()
    if not rows:
        return
    numeric = numeric_columns(columns)
    describe(path, names, columns, numeric)
    if plt is None:
        print("\nno chart: matplotlib is not installed here")
        return
    kind, x, series = plan(names, columns, numeric)
    chart = os.path.splitext(name)[0] + ".png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw(kind, x, series, name, names[0], os.path.join(os.environ.get("OUTPUT_DIR", "."), chart))
    print(f"\n{kind} chart of {', '.join(series)}: {chart}")


folder = os.environ.get("INPUT_DIR", ".")
for name in [os.path.basename(name) for name in UPLOADS] or sorted(os.listdir(folder)):
    path = os.path.join(folder, name)
    if name.lower().endswith((".csv", ".tsv")):
        summarize(path, name)
    else:
        print(f"{name}: {os.path.getsize(path)} bytes; not a CSV file, so there is nothing to summarize")
