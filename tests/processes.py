"""Child processes for tests: they start quickly, and they stay in a known state until the test has acted.

A test waits for a state with `wait_until`, never for an amount of time. `hold_training`, or the mirror `held` in conftest.py, keeps the child
in that state. `HANG` only stops a broken test.
"""
import contextlib
import ctypes
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent
HANG = 1800  # seconds

# A server imports these once and forks the children, which saves each child ten seconds.
IMPORTED = ['torch', 'torch._dynamo', 'torchvision.datasets', 'sklearn.datasets', 'PIL.Image', 'matplotlib.pyplot', 'seaborn',
            *sorted(f'cifar_resnet.{p.stem}' for p in (ROOT/'cifar_resnet').glob('[!_]*.py'))]
SERVER = multiprocessing.get_context('forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn')
if hasattr(SERVER, 'set_forkserver_preload'): SERVER.set_forkserver_preload(IMPORTED)


class Child:
    "Run a script of this environment, or code after '-c', in a process of its own"
    def __init__(self, command, cwd, folder, stdout=None, prepare=None):
        command = [str(c) for c in command]
        if command[0] != '-c': command[0] = str(SCRIPTS/command[0])  # an absolute path stays as it is
        self.command, self._stdout, self._stderr = command, Path(stdout or folder/'stdout'), folder/'stderr'
        self.process = SERVER.Process(target=_run, args=(command, os.path.abspath(cwd), dict(os.environ), self._stdout, self._stderr, prepare), daemon=True)
        self.process.start()

    @property
    def returncode(self): return self.process.exitcode

    @property
    def stdout(self): return _text(self._stdout)

    @property
    def stderr(self): return _text(self._stderr)

    def __repr__(self): return f'{self.command}: exit code {self.returncode}, stderr: {self.stderr}'

    def send_signal(self, sig): os.kill(self.process.pid, sig)

    def kill(self):
        self.process.kill()
        self.process.join()

    def wait(self):
        "Wait until the child ends; return the child"
        self.process.join(HANG)
        assert self.returncode is not None, f'still running after {HANG} s: {self}'
        return self


def _text(path): return path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''


def _run(command, cwd, env, stdout, stderr, prepare):
    "Do in a forked child what `python command` does, including the shutdown of the interpreter"
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for fd, path in (1, stdout), (2, stderr): os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), fd)
    sys.stdout, sys.stderr = _stream(1, 'strict'), _stream(2, 'backslashreplace', line_buffering=True)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in 'SIGTERM', 'SIGHUP':  # tests that run under nohup inherit an ignored SIGHUP
        if hasattr(signal, name): signal.signal(getattr(signal, name), signal.SIG_DFL)
    ctypes.pythonapi.Py_Exit(_exit_code(command, prepare))


def _stream(fd, errors, **kwargs):
    unbuffered = bool(os.environ.get('PYTHONUNBUFFERED'))
    raw = open(fd, 'wb', 0 if unbuffered else -1, closefd=False)
    return io.TextIOWrapper(raw, 'utf-8', errors, write_through=unbuffered, **kwargs)


def _exit_code(command, prepare):
    try:
        if prepare: prepare()
        if command[0] == '-c':
            sys.argv = ['-c', *command[2:]]
            exec(compile(command[1], '<string>', 'exec'), {'__name__': '__main__'})
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name='__main__')
        return 0
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int): return e.code or 0
        print(e.code, file=sys.stderr)
    except BaseException: traceback.print_exc()
    return 1


def wait_until(state, *children):
    "Return once `state()` is true; fail if one of `children` ends before"
    deadline = time.monotonic() + HANG
    while True:
        ended = [c for c in children if c.returncode is not None]
        if state(): return
        assert not ended, ended
        assert time.monotonic() < deadline, f'not reached after {HANG} s: {children}'
        time.sleep(.01)


def hold_training(reached, after=None, until=None):
    """For `prepare`: stop at the first training step at which the file `after` exists.

    Create the file `reached`, then wait until the file `until` exists (forever, without `until`). A signal interrupts the wait.
    """
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    parent = os.getppid()

    def hold(*args):
        if reached.exists() or after and not after.exists(): return
        reached.touch()
        while not (until and until.exists()):
            if os.getppid() != parent: os._exit(1)  # the test process has ended
            time.sleep(.01)
    register_optimizer_step_pre_hook(hold)


@contextlib.contextmanager
def without_permission(path):
    "Run the block as a user who may not read the file"
    root = os.geteuid() == 0
    opened = [p for p in path.absolute().parents if root and str(p).startswith('/tmp/pytest')]
    modes = [(p, p.stat().st_mode) for p in opened]
    for p in opened: p.chmod(0o755)
    path.chmod(0)
    if root: os.seteuid(65534)
    try: yield
    finally:
        if root: os.seteuid(0)
        path.chmod(0o644)
        for p, mode in modes: p.chmod(mode)


def interrupt_at(step, model):
    "Return the same network; Ctrl-C at training step `step`"
    seen = []

    def count(model, inputs):
        if model.training: seen.append(1)
        if len(seen) == step: raise KeyboardInterrupt
    model.register_forward_pre_hook(count)
    return model


def limit_file_size(n):
    "For `prepare`: fail every write beyond the first `n` bytes of a file, as on a full disk"
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))


LIST_MODULES = """
import atexit, sys
before = set(sys.modules)
atexit.register(lambda: print(*{m.split('.')[0] for m in sys.modules if m not in before and not m.startswith('__')} - sys.stdlib_module_names, file=sys.stderr))
"""
RUN_SCRIPT = 'import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'


def modules_after(*command, **kwargs):
    "Run `python command` in a new interpreter; return the finished process and the packages it loaded, without the standard library"
    code, *args = command[1:] if command[0] == '-c' else (RUN_SCRIPT, *command)
    done = subprocess.run([sys.executable, '-c', LIST_MODULES + code, *args], capture_output=True, text=True, timeout=HANG, **kwargs)
    return done, set(done.stderr.splitlines()[-1].split())
