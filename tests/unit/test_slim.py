"""The shipped script that takes out of an environment what nobody needs, run over environments that are made here."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import shutil
import stat
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.project import shipped_data

SLIM = shipped_data() / "dockerfiles/files/slim"
ARCHIVE = 1_000_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "venv/lib/python3.11/site-packages"


def install(site: Path, name: str, files: Mapping[str, str | bytes | int], version: str = "1") -> Path:
    """Installs a distribution; gives its RECORD."""
    information = f"{name}-{version}.dist-info"
    rows = []
    for path, what in files.items():
        data = bytes(what) if isinstance(what, int) else what.encode() if isinstance(what, str) else what
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
        rows.append((path, f"sha256={digest(data)}", str(len(data))))
    record = site / information / "RECORD"
    record.parent.mkdir(parents=True)
    rows.append((f"{information}/RECORD", "", ""))
    with record.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    return record


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def slim(site: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", SLIM, site.parents[2], *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def left(site: Path) -> set[str]:
    return {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file() and path.name != "RECORD"}


def recorded(record: Path) -> dict[str, tuple[str, str]]:
    with record.open(newline="") as stream:
        return {row[0]: (row[1], row[2]) for row in csv.reader(stream)}


def holds(site: Path, record: Path) -> bool:
    """Whether a RECORD names exactly files that are there, with their hashes and sizes."""
    for path, (sha256, size) in recorded(record).items():
        if sha256 and (sha256, size) != (
            f"sha256={digest((site / path).read_bytes())}",
            str((site / path).stat().st_size),
        ):
            return False
    return True


def test_test_suites_go_and_record_stays_true(site: Path) -> None:
    record = install(
        site,
        "numbers",
        {
            "numbers/__init__.py": "import os",
            "numbers/tests/__init__.py": "",
            "numbers/tests/data/big.bin": 100,
            "numbers/core/tests/test_a.py": "1/0",
            "numbers/testing/__init__.py": "",
            "numbers/latests.py": "",
        },
    )
    ran = slim(site)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "of tests taken out of" in ran.stdout
    assert left(site) == {"numbers/__init__.py", "numbers/testing/__init__.py", "numbers/latests.py"}
    assert set(recorded(record)) == {*left(site), "numbers-1.dist-info/RECORD"}
    assert holds(site, record)
    assert not (site / "numbers/tests").exists()
    assert not (site / "numbers/core/tests").exists()


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("numbers/a.py", "from numbers.tests import helper"),
        ("numbers/a.py", "from .tests import helper"),
        ("numbers/a.py", "from .tests.helper import x"),
        ("numbers/a.py", "from . import other, tests"),
        ("numbers/a.py", "from . import (tests)"),
        ("numbers/a.py", "from . import (  # both\n    other,\n    tests,\n)"),
        ("numbers/a.py", "from . import other, \\\n    tests as t"),
        ("numbers/a.py", "def f():\n    import numbers.tests.helper as h"),
        ("numbers/deep/a.py", "from ..tests import helper"),
        ("other/a.py", "import os, numbers.tests"),
    ],
)
def test_a_test_suite_that_a_module_imports_from_stays(site: Path, module: str, statement: str) -> None:
    install(site, "numbers", {"numbers/tests/helper.py": "", "numbers/core/tests/test_a.py": ""})
    install(site, "user", {module: statement})
    assert slim(site).returncode == 0
    assert left(site) == {"numbers/tests/helper.py", module}


@pytest.mark.parametrize(
    "statement",
    ["from other.tests import helper", "import tests", "x = 'numbers.tests'", "from numbers import testsuite"],
)
def test_another_name_keeps_no_test_suite(site: Path, statement: str) -> None:
    install(site, "numbers", {"numbers/tests/helper.py": "", "numbers/a.py": statement})
    assert slim(site).returncode == 0
    assert left(site) == {"numbers/a.py"}


def test_what_tests_torch_itself_goes_and_what_it_runs_stays(site: Path) -> None:
    files: dict[str, str | bytes | int] = {
        "torch/__init__.py": "",
        "torch/test/basic": 50,
        "torch/bin/test_api": 50,
        "torch/bin/protoc": 50,
        "torch/bin/torch_shm_manager": 50,
        "torch/lib/libtorchbind_test.so": 50,
        "torch/lib/libtorch.so": 50,
        "torch/include/torch.h": 50,
        "torch/testing/__init__.py": "",
    }
    record = install(site, "torch", files, "2.13.0+cpu")
    assert slim(site).returncode == 0
    gone = {"torch/test/basic", "torch/bin/test_api", "torch/bin/protoc", "torch/lib/libtorchbind_test.so"}
    assert left(site) == set(files) - gone
    assert holds(site, record)
    # Another distribution's are not touched.
    other = install(site, "other", {"other/bin/protoc": 50, "other/test/a": 50})
    assert slim(site).returncode == 0
    assert len(recorded(other)) == 3


def test_large_static_archives_go_unless_they_are_to_be_kept(site: Path) -> None:
    files: dict[str, str | bytes | int] = {"n/libone.a": ARCHIVE, "n/libtwo.a": ARCHIVE, "n/libsmall.a": ARCHIVE - 1}
    install(site, "n", files)
    assert slim(site, "--keep", "n/libtwo*").returncode == 0
    assert left(site) == {"n/libtwo.a", "n/libsmall.a"}


def test_a_second_run_changes_nothing(site: Path) -> None:
    record = install(site, "n", {"n/tests/a.py": "", "n/a.py": ""})
    assert slim(site).returncode == 0
    before = (record.read_bytes(), record.stat().st_mtime_ns, record.stat().st_ino)
    ran = slim(site)
    assert ran.stdout.startswith("slim: nothing taken out of")
    assert (record.read_bytes(), record.stat().st_mtime_ns, record.stat().st_ino) == before


def test_a_file_that_two_distributions_list_goes_from_both_records(site: Path) -> None:
    # Whichever comes first: `torch` alone says that its tests may go.
    first = install(site, "a", {"torch/test/basic": 50, "a/__init__.py": ""})
    middle = install(site, "torch", {"torch/test/basic": 50, "torch/__init__.py": ""})
    last = install(site, "z", {"torch/test/basic": 50, "z/__init__.py": ""})
    assert slim(site).returncode == 0
    assert left(site) == {"a/__init__.py", "torch/__init__.py", "z/__init__.py"}
    for record in (first, middle, last):
        assert len(recorded(record)) == 2
        assert holds(site, record)


def test_nothing_outside_of_site_packages_and_behind_a_link_is_touched(site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "venv/lib/tests"
    outside.mkdir(parents=True)
    (outside / "a").write_text("stays")
    record = install(site, "n", {"n/a.py": ""})
    (site / "n/tests").mkdir()
    (site / "n/tests/link").symlink_to(outside / "a")
    with record.open("a") as stream:
        stream.write(f"../../tests/a,,\n{outside}/a,,\nn/tests/link,,\nn/tests/missing,,\n\n")
    text = record.read_text()
    assert slim(site).returncode == 0
    assert (outside / "a").read_text() == "stays"
    assert (site / "n/tests/link").is_symlink()
    assert record.read_text() == text


def test_a_place_without_packages_is_refused(tmp_path: Path) -> None:
    ran = slim(tmp_path / "a/b/c/d")
    assert ran.returncode == 2
    assert "has no site-packages" in ran.stderr


# --- symbols -----------------------------------------------------------------------------------


def with_symbols(data: bytes, names: int = 4000) -> bytes:
    """An ELF file with a symbol table and debugging information added behind it, as a linker lays them."""
    header = list(struct.unpack_from("<16sHHIQQQIHHHHHH", data))
    table, count, names_index = header[6], header[12], header[13]
    sections = [list(struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * number)) for number in range(count)]
    title = sections[names_index]
    strings = data[title[4] : title[4] + title[5]] + b".symtab\0.strtab\0.debug_info\0"
    at = {name: strings.index(name + b"\0") for name in (b".symtab", b".strtab", b".debug_info")}
    out = bytearray(data)
    out += b"\0" * (-len(out) % 16)
    symbols, texts = len(out), b"\0" + b"".join(b"local_%d\0" % number for number in range(names))
    out += bytes(24 * names)
    texts_at = len(out)
    out += texts
    debug_at = len(out)
    out += b"debug" * 1000
    sections.append([at[b".symtab"], 2, 0, 0, symbols, 24 * names, count + 1, names, 8, 24])
    sections.append([at[b".strtab"], 3, 0, 0, texts_at, len(texts), 0, 0, 1, 0])
    sections.append([at[b".debug_info"], 1, 0, 0, debug_at, 5000, 0, 0, 1, 0])
    title[4], title[5] = len(out), len(strings)
    out += strings
    out += b"\0" * (-len(out) % 8)
    header[6], header[12] = len(out), count + 3
    for section in sections:
        out += struct.pack("<IIQQQQIIQQ", *section)
    out[:64] = struct.pack("<16sHHIQQQIHHHHHH", *header)
    return bytes(out)


@pytest.fixture(scope="module")
def library() -> bytes:
    """A small library that any machine with these tests can load: an extension module of PyYAML or of Python."""
    import yaml

    places = [Path(yaml.__file__).parent, Path(sysconfig.get_path("platstdlib")) / "lib-dynload"]
    found = [path for place in places for path in place.glob("*.so")]
    return min(found, key=lambda path: path.stat().st_size).read_bytes()


def program(directory: Path, body: str) -> Path:
    """A program that is called like eu-strip; `body` is Python that has the bytes of the library as `data`."""
    path = directory / "tool/eu-strip"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!{sys.executable} -S\nimport os, pathlib, struct, sys\n"
        "assert sys.argv[1] == '-o' and len(sys.argv) == 4, sys.argv\n"
        "assert os.environ['LD_LIBRARY_PATH'] == os.path.dirname(sys.argv[0])\n"
        "data = bytearray(pathlib.Path(sys.argv[3]).read_bytes())\n"
        f"{body}\npathlib.Path(sys.argv[2]).write_bytes(data)\n"
    )
    path.chmod(0o755)
    return path


GOOD = """
table, = struct.unpack_from("<Q", data, 40)
count, names = struct.unpack_from("<HH", data, 60)
kept = [data[table + 64 * at: table + 64 * at + 64] for at in range(count - 3)]
del data[struct.unpack_from("<Q", data, table + 64 * (count - 3) + 24)[0]:]
struct.pack_into("<QQ", kept[names], 24, 0, 0)
struct.pack_into("<Q", data, 40, len(data))
struct.pack_into("<H", data, 60, count - 3)
for header in kept:
    data += header
"""
"""Takes out what `with_symbols` has added, and the names of sections."""
LARGER = """
table, = struct.unpack_from("<Q", data, 40)
struct.pack_into("<Q", data, 40, len(data))
data += data[table: table + 64 * struct.unpack_from("<H", data, 60)[0]]
"""
"""The same library, with its table of sections once more."""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return program(tmp_path, GOOD)


def loads(path: Path) -> bool:
    code = f"import ctypes; print(ctypes.CDLL({str(path)!r})._name)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    return (ran.stdout, ran.stderr) == (f"{path}\n", "")


def test_symbols_go_and_the_library_still_loads(site: Path, library: bytes, good: Path) -> None:
    large = with_symbols(library)
    record = install(
        site, "n", {"n/module.so": large, "n/other.so": b"\x7fELF nothing of the kind", "n/text.so": "text"}
    )
    stripped = site / "n/module.so"
    stripped.chmod(0o755)
    os.utime(stripped, ns=(10**18, 10**18))
    ran = slim(site, "--strip", good)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "of symbols" in ran.stdout
    assert stripped.stat().st_size < len(large) - 24 * 4000 - 5000
    assert (stat.S_IMODE(stripped.stat().st_mode), stripped.stat().st_mtime_ns) == (0o755, 10**18)
    assert holds(site, record)
    assert loads(stripped)
    before = record.stat().st_mtime_ns
    assert slim(site, "--strip", good).stdout.startswith("slim: nothing")
    assert record.stat().st_mtime_ns == before
    assert left(site) == {"n/module.so", "n/other.so", "n/text.so"}


def test_the_symbols_of_a_file_that_two_distributions_list_go_once(site: Path, library: bytes, good: Path) -> None:
    records = [install(site, name, {"shared/module.so": with_symbols(library)}) for name in ("a", "b")]
    assert slim(site, "--strip", good).returncode == 0
    assert (site / "shared/module.so").stat().st_size < len(with_symbols(library))
    assert all(holds(site, record) for record in records)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("sys.exit(1)", id="it fails"),
        pytest.param(GOOD + "print('odd', file=sys.stderr)", id="it warns"),
        pytest.param(GOOD + "data[200] ^= 1", id="what is loaded differs"),
        pytest.param(GOOD + "data[20] ^= 1", id="the header differs"),
        pytest.param("data = data[:100]", id="cut off"),
        pytest.param("data = bytearray()", id="nothing in it"),
        pytest.param("data = bytearray(b'text')", id="no ELF file"),
        pytest.param(LARGER, id="larger"),
        pytest.param("sys.exit(0)", id="nothing comes"),
    ],
)
def test_what_is_not_the_same_library_is_not_taken(site: Path, tmp_path: Path, library: bytes, body: str) -> None:
    large = with_symbols(library)
    record = install(site, "n", {"n/module.so": large})
    before = record.read_bytes()
    ran = slim(site, "--strip", program(tmp_path, body))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("slim: nothing")
    assert ((site / "n/module.so").read_bytes(), record.read_bytes()) == (large, before)
    assert left(site) == {"n/module.so"}


def test_what_a_program_carries_behind_itself_stays(site: Path, library: bytes, good: Path) -> None:
    large = with_symbols(library) + b"an archive that the program reads from its own file"
    install(site, "n", {"n/module.so": large, "n/plain.so": with_symbols(library)})
    assert slim(site, "--strip", good).returncode == 0
    assert (site / "n/module.so").read_bytes() == large
    assert (site / "n/plain.so").stat().st_size < len(with_symbols(library))


def test_a_library_without_names_of_sections_is_no_error(site: Path, library: bytes, good: Path) -> None:
    without = bytearray(with_symbols(library))
    struct.pack_into("<H", without, 62, 0)
    none = bytearray(without)
    none[40:48], none[58:64] = bytes(8), bytes(6)
    install(site, "n", {"n/none.so": bytes(none), "n/without.so": bytes(without)})
    ran = slim(site, "--strip", good)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (site / "n/none.so").read_bytes() == none


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A library with symbols and debugging information, from a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "the tests need a C compiler"
    source = tmp_path / "one.c"
    source.write_text("static int hidden(int x) { return x + 41; }\nint answer(int x) { return hidden(x); }\n")
    built = tmp_path / "libone.so"
    subprocess.run([compiler, "-g", "-O0", "-shared", "-fPIC", source, "-o", built], check=True)
    return built


def test_a_library_that_can_be_linked_with_still_can_be(site: Path, tmp_path: Path, compiled: Path) -> None:
    # What comes with every compiler and is called the same; engine tests build with eu-strip.
    strip = shutil.which("strip")
    assert strip, "the tests need binutils"
    install(site, "n", {"n/libone.so": compiled.read_bytes()})
    assert slim(site, "--strip", strip).returncode == 0
    stripped = site / "n/libone.so"
    assert stripped.stat().st_size < compiled.stat().st_size
    main = tmp_path / "main.c"
    main.write_text("int answer(int);\nint main(void) { return answer(1); }\n")
    linked = tmp_path / "main"
    subprocess.run(["cc", main, stripped, f"-Wl,-rpath,{stripped.parent}", "-o", linked], check=True)
    assert subprocess.run([linked], check=False).returncode == 42


@pytest.mark.parametrize("length", [7, 20, 64, 100, 500])
def test_a_file_that_is_cut_off_is_left_alone(site: Path, library: bytes, good: Path, length: int) -> None:
    data = with_symbols(library)[:length]
    install(site, "n", {"n/module.so": data})
    ran = slim(site, "--strip", good)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (site / "n/module.so").read_bytes() == data


def test_without_a_program_symbols_stay(site: Path, library: bytes) -> None:
    install(site, "n", {"n/module.so": with_symbols(library), "n/tests/a.py": ""})
    assert slim(site).returncode == 0
    assert left(site) == {"n/module.so"}
    assert (site / "n/module.so").read_bytes() == with_symbols(library)


def test_a_program_that_is_not_there_is_said_before_anything_goes(site: Path, tmp_path: Path) -> None:
    install(site, "n", {"n/tests/a.py": ""})
    ran = slim(site, "--strip", tmp_path / "none")
    assert (ran.returncode, ran.stderr) == (2, f"slim: {tmp_path / 'none'} is no program that can be run\n")
    assert left(site) == {"n/tests/a.py"}
