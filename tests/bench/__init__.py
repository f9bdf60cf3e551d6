"""The benches. `./tools/bench` lists them, `./tools/bench NAME… [--quick] [--json]` runs them.

A bench is a file `bench_NAME.py` here with a one-line `DESCRIPTION` and `run(context: Context) -> list[Figure]`.
It may also say `NEEDS_FIRMWARE = ("mps2_an385", …)`: the CMake presets that must be built before it runs.
"""
