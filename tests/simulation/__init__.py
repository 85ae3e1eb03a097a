"""A deterministic simulation of the whole protocol: the real code on the real ORM, in virtual time.

``python -m tests.simulation --seed 1 --days 10 --faults 1``. Every worker, reader and complainer is a greenlet; one
runs at a time, and which one goes on is decided by virtual time and the seed alone. They change places where the
real code does I/O: at every SQL statement, cache operation, HTTP request and sleep. One seed is one run.

======================  ===============================================================================
``kernel``              virtual time, tasks, kills and pauses
``processes``           hosts and processes: whose memory, clock and keys the package sees
``wiring``              the seams of the package that the simulation takes over
``threads``             tasks for threads: flights and those who wait for them
``database`` ``cache`` ``network``   the I/O, and what goes wrong there
``cipher`` ``prepared``              encryption and the most frequent queries, made cheap
``swarm``               which faults a run has, and how often
``calamities``          the larger ones: outages, kills, clocks, lost keys, backups, people
``actors``              readers, complainers, liars, transactions that hold a row, beat
``upstream``            what WeChat issued and why each token died: the truth
``witness``             the invariants, checked in every step
``tickets``             what WeChat issued of them, and their invariants
``world`` ``report``    a run and its verdict
======================  ===============================================================================
"""
