"""All benchmarks, one after the other."""

from benchmarks import throughput

throughput.main()
