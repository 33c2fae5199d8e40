"""The `salamander` command, run as a child."""
import json
import pathlib
import signal
import subprocess
import tempfile
import threading


class Salamander:
    """The command of one build folder, with a temporary folder for prompts; use it in a with statement."""

    def __init__(self, bin_folder: str, model: str):
        self._program = str(pathlib.Path(bin_folder) / "salamander")
        self.model = model
        self._prompts = tempfile.TemporaryDirectory(prefix="salamander-demo-")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._prompts.cleanup()

    def command(self, *args: str):
        return [self._program, *args]

    def _json(self, subcommand: str, prompt: str, *args: str):
        """Runs a subcommand on a chat of one message; its stderr, with the progress bar, is ours."""
        path = pathlib.Path(self._prompts.name) / "prompt.txt"
        path.write_text(prompt, encoding="utf-8")
        command = self.command(subcommand, "--chat", f"--prompt_file={path}", *args)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
        if done.returncode != 0:
            raise SystemExit(f"demo: {' '.join(command[:2])} failed with exit code {done.returncode}")
        return json.loads(done.stdout)

    def generate(self, target: str, prompt: str):
        return self._json("generate", prompt, f"--target={target}", "--max_tokens=16", "--temperature=0", "--json")

    def run(self, prompt: str):
        return self._json("run", prompt, f"--model={self.model}", "--max_tokens=16", "--temperature=0", "--json")

    def count_tokens(self, target: str, prompt: str) -> int:
        return len(self._json("tokenize", prompt, f"--target={target}"))


class Cluster:
    """`salamander serve` for as long as the with statement; `target` is its router."""

    START_SECONDS = 60
    STOP_SECONDS = 60

    def __init__(self, salamander: Salamander, prefill_workers: int):
        self._command = salamander.command("serve", f"--model={salamander.model}", "--listen=127.0.0.1:0",
                                           f"--prefill_workers={prefill_workers}")
        self.target = ""

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(self.START_SECONDS, self._process.kill)
        watchdog.start()
        self.target = next((line.split()[1] for line in self._process.stdout if line.startswith("ready ")), "")
        watchdog.cancel()
        if not self.target:
            raise SystemExit(f"demo: salamander serve ended with exit code {self._process.wait()} before it was ready")
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(self.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        if code != 0:
            raise SystemExit(f"demo: salamander serve ended with exit code {code}")
