"""What a zygote has imported and done once, so that the interpreters it forks need not."""

import gc
import importlib
import io
import os
import shutil
import sys
import warnings
from pathlib import Path

STANDARD = """
    argparse array asyncio base64 bisect bz2 calendar collections concurrent.futures concurrent.futures.process
    concurrent.futures.thread configparser contextlib copy csv ctypes dataclasses datetime decimal difflib
    encodings.utf_8_sig enum fractions functools glob gzip hashlib heapq html http.client inspect itertools json
    linecache logging lzma math multiprocessing multiprocessing.context multiprocessing.pool operator os pathlib pickle
    platform pprint queue random re secrets select shlex shutil signal socket sqlite3 ssl statistics string struct
    subprocess tarfile tempfile textwrap threading time timeit traceback types typing unicodedata unittest urllib.parse
    urllib.request uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo
"""

CORE = """
    dateutil.parser dateutil.tz matplotlib matplotlib.backends.backend_agg matplotlib.backends.backend_svg matplotlib.dates
    matplotlib.pyplot numpy numpy.fft numpy.linalg numpy.random pandas pandas.plotting PIL.Image PIL.PngImagePlugin pytz
"""

ALL = """
    docx img2pdf joblib lxml.etree lxml.html matplotlib.animation matplotlib.backends.backend_pdf mpl_toolkits.mplot3d
    mpmath openpyxl openpyxl.chart openpyxl.styles pdfplumber PIL.ImageDraw PIL.ImageFont PIL.JpegImagePlugin pptx
    pptx.util pyarrow pyarrow.compute pyarrow.csv pyarrow.parquet pypdf pypdfium2 reportlab.lib.pagesizes
    reportlab.lib.styles reportlab.pdfgen.canvas reportlab.platypus scipy scipy.cluster.hierarchy scipy.fft
    scipy.integrate scipy.interpolate scipy.linalg scipy.ndimage scipy.optimize scipy.signal scipy.sparse
    scipy.sparse.linalg scipy.spatial scipy.special scipy.stats seaborn sklearn sklearn.cluster sklearn.datasets
    sklearn.decomposition sklearn.ensemble sklearn.linear_model sklearn.metrics sklearn.model_selection
    sklearn.naive_bayes sklearn.neighbors sklearn.pipeline sklearn.preprocessing sklearn.svm sklearn.tree
    statsmodels.api statsmodels.formula.api statsmodels.tsa.api sympy tqdm xlrd xlsxwriter
"""

GROUPS = {"none": STANDARD, "core": STANDARD + CORE, "all": STANDARD + CORE + ALL}

FONT_LIST = Path("/root/.cache/matplotlib")
"""Where the image keeps matplotlib's list of fonts."""
SCRATCH = Path("/tmp/matplotlib")
"""Where matplotlib believes its caches to be: a place that can be written to here and in a container."""


def warm(group):
    """Imports a group and does representative work with it. Leaves no descriptor open and no thread."""
    keep_font_list()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A library's own, at import; a cell that imports it again sees none either.
        for name in GROUPS[group].split():
            importlib.import_module(name)
        # Sets OpenSSL up, which takes milliseconds. A child must mix something of its own in, and does.
        sys.modules["ssl"].RAND_bytes(1)
        if group != "none":
            work_with_tables()
            work_with_figures()
        if group == "all":
            work_with_models()
    os.environ.pop("MPLCONFIGDIR", None)
    gc.collect()


def keep_font_list():
    """Looking for fonts takes seconds; the image has the list, in a directory that cannot be written to here."""
    if "MPLCONFIGDIR" in os.environ:
        return
    SCRATCH.mkdir(parents=True, exist_ok=True)
    for file in FONT_LIST.glob("fontlist-*.json"):
        shutil.copy(file, SCRATCH)
    os.environ["MPLCONFIGDIR"] = str(SCRATCH)


def work_with_tables():
    """What most first cells do with pandas."""
    pandas = sys.modules["pandas"]
    days = pandas.date_range("2024-01-01", periods=6)
    table = pandas.DataFrame({"name": list("ababab"), "value": [1.5, 2.0, 2.5, 3.0, 3.5, 4.0], "count": range(6), "day": days})
    table["ratio"] = table["value"] / (table["count"] + 1)
    table.groupby("name").agg({"value": ["mean", "sum"], "count": "max"}).to_string()
    table.describe().to_string()
    table.sort_values("value", ascending=False).head().to_string()
    table.pivot_table(index="name", values="value").to_string()
    table.merge(table, on="name")["name"].value_counts()
    table["name"].str.upper().str.contains("A")
    table.set_index("day").resample("2D").sum(numeric_only=True)
    pandas.read_csv(io.StringIO(table.to_csv(index=False)), parse_dates=["day"]).isna().sum()


def work_with_figures():
    """Draws into memory; closes what holds font files open."""
    pyplot, font_manager = sys.modules["matplotlib.pyplot"], sys.modules["matplotlib.font_manager"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(6, 3))
    left.plot([1, 2, 3], [1, 4, 9], label="line")
    left.set_title("Title")
    left.set_xlabel("x")
    left.legend()
    left.grid(True)
    right.bar(["a", "b"], [1, 2])
    right.hist([1, 1, 2])
    figure.tight_layout()
    figure.savefig(io.BytesIO(), format="png")
    pyplot.close("all")
    font_manager._get_font.cache_clear()


def work_with_models():
    """Runs through what the other libraries load lazily."""
    numpy, stats, linear = (sys.modules[name] for name in ("numpy", "scipy.stats", "sklearn.linear_model"))
    x = numpy.arange(8.0)
    stats.ttest_ind(x, x + 1)
    linear.LinearRegression().fit(x[:, None], 2 * x).predict(x[:, None])
    sympy = sys.modules["sympy"]
    symbol = sympy.Symbol("x")
    sympy.solve(symbol**2 - 2, symbol)
    sympy.integrate(sympy.sin(symbol), symbol)
