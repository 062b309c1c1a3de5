import csv
import gzip
import os
import sys
import warnings

import matplotlib

matplotlib.use("agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator

ROWS_MAX = 1_000_000
COLUMNS_SHOWN_MAX = 40
INK, MUTED, GRID, BLUE = "#1f2933", "#616e7c", "#e4e7eb", "#2f6fb2"


def main():
    path = sys.argv[1]
    name = os.path.basename(path)
    sys.stdout.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *place, **more: f"{message}\n"
    # Infinite numbers have no mean. A font without some character shows a box for it.
    for unimportant in ("invalid value", "Glyph"):
        warnings.filterwarnings("ignore", message=unimportant)
    table = load(path)
    if table is None:
        print("The file is empty: no columns, no rows.")
        return
    describe(table)
    if len(table) == 0:
        print("\nThere are no rows, so there is no chart.")
        return
    style()
    draw(table, name)
    plt.savefig(os.path.join(os.environ["OUTPUT_DIR"], "chart.png"))
    print("Saved chart.png.")


# Reading: not every file is UTF-8 with commas.

def load(path):
    opener = gzip.open if path.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            head = file.read(1 << 16)
    except (OSError, EOFError) as error:
        sys.exit(f"The file cannot be read: {error}")
    if not head.strip():
        return None
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ["utf-16"] if wide else ["utf-8-sig", "latin-1"]:
        separator = guess_separator(path, head.decode(encoding, errors="replace"))
        try:
            table = pd.read_csv(path, sep=separator, encoding=encoding, nrows=ROWS_MAX + 1,
                                low_memory=False, on_bad_lines="warn")
        except UnicodeDecodeError:
            continue
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, EOFError, OSError) as error:
            sys.exit(f"The file cannot be read as a table: {error}")
        print(f"Read as {encoding.removesuffix('-sig')}, separated by {separator!r}.")
        if len(table) > ROWS_MAX:
            table = table.iloc[:ROWS_MAX]
            print(f"Only the first {ROWS_MAX:,} rows were read.")
        return table
    sys.exit("The file cannot be read as text.")


def guess_separator(path, sample):
    if path.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    first = next((line for line in sample.splitlines() if line.strip()), "")
    width = {mark: len(next(csv.reader([first], delimiter=mark))) for mark in ",;\t|"}
    return max(width, key=width.get)


# Telling.

def describe(table):
    rows, columns = table.shape
    print(f"{rows:,} rows, {columns:,} columns\n")
    print("Columns:")
    shown = table.iloc[:, :COLUMNS_SHOWN_MAX]
    facts = pd.DataFrame({
        "type": [str(kind) for kind in shown.dtypes],
        "missing": shown.isna().sum().to_numpy(),
        "distinct": shown.nunique().to_numpy(),
    }, index=[short(column, 40) for column in shown.columns])
    print(facts.to_string())
    if columns > COLUMNS_SHOWN_MAX:
        print(f"... and {columns - COLUMNS_SHOWN_MAX:,} more")
    numbers = shown.select_dtypes("number")
    if rows and not numbers.empty:
        print("\nNumbers:")
        summary = numbers.describe().T.drop(columns="count")
        summary.index = [short(column, 40) for column in summary.index]
        print(summary.to_string(float_format=lambda value: f"{value:,.6g}"))
    if rows:
        print("\nFirst rows:")
        first = table.iloc[:5, :12].copy()
        first.columns = [short(column, 24) for column in first.columns]
        print(first.to_string(index=False, max_colwidth=24))
    print()


def short(text, chars_max):
    text = " ".join(str(text).split())
    return text if len(text) <= chars_max else text[:chars_max - 1] + "…"


# Drawing.

def style():
    plt.rcParams.update({
        "figure.figsize": (9, 5), "figure.dpi": 160, "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.16, "figure.constrained_layout.h_pad": 0.14,
        "font.size": 10.5, "text.color": INK, "axes.labelcolor": MUTED,
        "xtick.color": MUTED, "ytick.color": MUTED, "axes.edgecolor": GRID,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
        "xtick.bottom": False, "ytick.left": False,
        "axes.titlelocation": "left", "agg.path.chunksize": 20_000,
    })


def label(text, chars_max=60):
    # Between two dollar signs, matplotlib would read mathematics.
    return short(text, chars_max).replace("$", r"\$")


def draw(table, name):
    when, dates = find_dates(table)
    numbers = [column for column in range(table.shape[1])
               if column != when and is_measure(table, column)]
    if when is not None and numbers:
        line_chart(table, dates, when, numbers[0], name)
    elif numbers:
        histograms(table, numbers[:4], name)
    else:
        bars(table, 0 if when != 0 or table.shape[1] == 1 else 1, name)


def is_measure(table, column):
    values, title = table.iloc[:, column], str(table.columns[column])
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    # A column without a title that counts the rows is the index of whoever wrote the file.
    counts = title.startswith("Unnamed:") and values.is_unique
    return bool(values.notna().any()) and not counts


def find_dates(table):
    """The first column that holds dates, and the dates."""
    for column in range(min(table.shape[1], COLUMNS_SHOWN_MAX)):
        dates = as_dates(table.iloc[:, column], str(table.columns[column]))
        if dates is not None:
            return column, dates
    return None, None


def as_dates(values, title):
    filled = values.dropna()
    if filled.nunique() < 2:
        return None
    if pd.api.types.is_numeric_dtype(values):
        if pd.api.types.is_bool_dtype(values) or (filled % 1 != 0).any():
            return None
        if filled.between(1000_01_01, 2999_12_31).all():
            return parsed(values.astype("Int64").astype("string"), "%Y%m%d")
        if title.strip().lower() in ("year", "yr", "jahr") and filled.between(1700, 2262).all():
            return parsed(values.astype("Int64").astype("string"), "%Y")
        return None
    text = values.astype("string").str.strip()
    for form in ("ISO8601", "%Y%m%d", "%Y/%m/%d", "%m/%d/%Y", "%d.%m.%Y", "%d-%b-%y", "%d-%b-%Y"):
        if parsed(text.dropna().head(200), form) is not None:
            return parsed(text, form)
    return None


def parsed(text, form):
    dates = pd.to_datetime(text, format=form, errors="coerce", utc=True).dt.tz_localize(None)
    filled = text.notna().sum()
    return dates if filled and dates.notna().sum() >= 0.9 * filled else None


def line_chart(table, dates, when, what, name):
    title = label(table.columns[what])
    points = pd.DataFrame({"when": dates, "what": table.iloc[:, what].astype(float)})
    points = points.replace([float("inf"), float("-inf")], float("nan")).dropna()
    if points.empty:
        return histograms(table, [what], name)
    if points["when"].duplicated().any():
        title += " (mean of each date)"
    series = points.groupby("when")["what"].mean().sort_index()
    axes = plt.subplots()[1]
    axes.fill_between(series.index, series, series.min() - (series.max() - series.min()), color=BLUE,
                      alpha=0.09, linewidth=0)
    axes.plot(series.index, series, color=BLUE, linewidth=1.6 if len(series) < 2000 else 0.9,
              marker="o" if len(series) <= 40 else None, markersize=4)
    spread = (series.max() - series.min()) or 1
    axes.set_ylim(series.min() - 0.08 * spread, series.max() + 0.1 * spread)
    axes.annotate(f"{series.iloc[-1]:,.6g}", (series.index[-1], series.iloc[-1]), xytext=(6, 0),
                  textcoords="offset points", va="center", color=BLUE, fontweight="bold",
                  annotation_clip=False)
    locator = mdates.AutoDateLocator(maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    axes.grid(axis="x", visible=False)
    axes.margins(x=0.01)
    axes.set_title(title, fontsize=14, fontweight="bold", pad=12)
    axes.set_xlabel(label(table.columns[when]))
    caption(name, f"{len(series):,} points, {series.index[0]:%Y-%m-%d} to {series.index[-1]:%Y-%m-%d}")


def histograms(table, columns, name):
    wide = 1 if len(columns) == 1 else 2
    tall = (len(columns) + wide - 1) // wide
    figure, grid = plt.subplots(tall, wide, squeeze=False, figsize=(9, 5 if tall == 1 else 6.5))
    for axes, column in zip(grid.flat, columns):
        values = table.iloc[:, column].replace([float("inf"), float("-inf")], float("nan")).dropna()
        axes.hist(values.astype(float), bins=min(40, max(8, values.nunique())), color=BLUE, alpha=0.85,
                  edgecolor="white", linewidth=0.6)
        axes.axvline(values.median(), color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.grid(axis="x", visible=False)
        axes.set_title(label(table.columns[column], 36), fontsize=12, fontweight="bold")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in list(grid.flat)[len(columns):]:
        axes.set_visible(False)
    caption(name, f"{len(table):,} rows; the dashed line is the median")


def bars(table, column, name):
    counts = table.iloc[:, column].dropna().astype(str).value_counts().head(12)[::-1]
    axes = plt.subplots()[1]
    axes.barh([label(value, 32) for value in counts.index], counts, color=BLUE, alpha=0.85)
    axes.grid(axis="y", visible=False)
    axes.set_title(f"Most frequent: {label(table.columns[column])}", fontsize=14, fontweight="bold", pad=14)
    axes.set_xlabel("rows")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption(name, f"{len(table):,} rows, {table.iloc[:, column].nunique():,} distinct values")


def caption(name, facts):
    plt.gcf().supxlabel(f"{label(name)}  ·  {facts}", x=0.02, ha="left", fontsize=8.5, color=MUTED)


main()
