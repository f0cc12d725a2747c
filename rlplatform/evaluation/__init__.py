"""Judging: one continuous out-of-sample path, the same ledger for policy and baselines, intervals, gate, report."""
