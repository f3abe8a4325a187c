"""The package itself: imports, parameters, the program, the library that it holds."""

import pickle
import subprocess
import sys
import unittest
from pathlib import Path

import galley
from galley import SamplingParams
from galley._library import TREE, library
from support import ROOT, python

sys.path.append(str(ROOT / "ffi/python"))
import build_backend
import cdef
import elf


class Import(unittest.TestCase):
    def test_an_import_loads_neither_the_library_nor_asyncio(self):
        bare = set(python("import sys; print(*sys.modules)").split())
        loaded = set(python("import sys, galley; print(*sys.modules)").split()) - bare
        print(f"\nimport galley loads {len(loaded)} modules: {', '.join(sorted(loaded))}")
        heavy = {"asyncio", "_cffi_backend", "cffi", "pycparser", "galley._cffi", "galley._async", "ctypes", "numpy"}
        self.assertEqual(loaded & heavy, set())
        used = set(python("import sys, galley; galley.features(); print(*sys.modules)").split())
        self.assertIn("_cffi_backend", used)  # the control: a use does load it
        self.assertEqual(used & {"pycparser", "asyncio"}, set())

    def test_an_import_is_quick(self):
        code = "import time; start = time.perf_counter(); import galley; print(time.perf_counter() - start)"
        seconds = min(float(python(code)) for _ in range(5))
        print(f"\nimport galley takes {seconds * 1e3:.1f} ms")
        self.assertLess(seconds, 0.15)

    def test_every_public_name_is_there(self):
        for name in galley.__all__:
            self.assertTrue(hasattr(galley, name), name)
        with self.assertRaises(AttributeError):
            print(galley.no_such_name)


class Parameters(unittest.TestCase):
    def test_an_unknown_name_is_refused_with_the_nearest(self):
        with self.assertRaisesRegex(TypeError, "'temprature'; did you mean 'temperature'"):
            SamplingParams(temprature=0.5)
        with self.assertRaisesRegex(TypeError, "known are n, "):
            SamplingParams(xyz=1)

    def test_parameters_survive_pickle_and_clone(self):
        params = SamplingParams(temperature=0.5, stop=["a"], logit_bias={5: 1.0})
        self.assertEqual(pickle.loads(pickle.dumps(params)), params)
        copy = params.clone()
        copy.seed = 7
        self.assertIsNone(params.seed)
        self.assertNotEqual(copy, params)

    def test_a_request_has_the_given_keys(self):
        self.assertEqual(SamplingParams().to_request(), {"max_tokens": 16})
        self.assertEqual(SamplingParams(max_tokens=None, seed=0).to_request(), {"seed": 0})


class Program(unittest.TestCase):
    def test_the_module_is_the_program(self):
        done = subprocess.run(
            [sys.executable, "-I", "-m", "galley", "--version"], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout.split()[1]), (0, galley.__version__), done.stderr)
        done = subprocess.run(
            [sys.executable, "-I", "-m", "galley", "no-such-command"], capture_output=True, check=False
        )
        self.assertEqual(done.returncode, 2)


class Library(unittest.TestCase):
    HEADER = (ROOT / "ffi/include/galley.h").read_text()

    def test_the_library_has_every_function_of_the_header(self):
        names = cdef.functions(self.HEADER)
        self.assertIn("galley_queue_wait", names)
        for name in names:
            self.assertTrue(hasattr(library().lib, name), name)
        self.assertFalse(hasattr(library().lib, "galley_no_such_function"))

    def test_the_package_was_built_from_this_header(self):
        constants = [
            line.split()[1:3] for line in cdef.declarations(self.HEADER).splitlines() if line.startswith("#define")
        ]
        self.assertIn(["GALLEY_CLOSED", "3"], constants)
        for name, value in constants:
            self.assertEqual(getattr(library().lib, name), int(value, 0), name)

    def test_every_code_has_an_exception(self):
        codes = [line.split()[1] for line in cdef.declarations(self.HEADER).splitlines() if line.startswith("#define")]
        start, end = codes.index("GALLEY_OK") + 1, codes.index("GALLEY_BUG") + 1
        known = {"GALLEY_" + code.upper() for code in galley._errors.CLASSES}
        # A stale handle is a fault of this package, and no error that a program can expect.
        self.assertEqual(set(codes[start:end]) - known, {"GALLEY_INVALID_HANDLE"})

    def test_declarations_lose_what_cffi_cannot_read(self):
        text = (
            '#ifndef X\n#define X\n#ifdef __cplusplus\nextern "C" {\n#endif\n/* a\n b */ int galley_f(void); // c\n'
            "#define GALLEY_A 0x1F\n#define GALLEY_B (-3)\n#define GALLEY_C other\n#endif\n"
        )
        self.assertEqual(
            cdef.declarations(text).split("\n"),
            ["int galley_f(void);", "#define GALLEY_A 0x1F", "#define GALLEY_B -3", ""],
        )

    def test_the_wheel_needs_a_tree(self):
        for settings in [None, {}, {"tree": ""}]:
            with self.assertRaisesRegex(SystemExit, '"tree" is missing'):
                build_backend.build_wheel("/nowhere", settings)

    def test_the_wheels_tag_follows_from_the_files(self):
        files = [elf.ElfFile(path) for path in Path(TREE).rglob("*") if path.is_file()]
        self.assertGreaterEqual(len(files), 8)  # program, library, six drafters
        major, minor = elf.glibc(files)
        self.assertEqual(elf.foreign_libraries(files), [])
        info = next(Path(galley.__file__).parent.parent.glob("galley_engine-*.dist-info"))
        self.assertIn(f"manylinux_{major}_{minor}_{files[0].machine()}", (info / "WHEEL").read_text())
        with self.assertRaises(ValueError):
            elf.ElfFile(__file__)
