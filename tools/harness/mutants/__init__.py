# SPDX-License-Identifier: GPL-2.0-only
"""``tools/mutants``: small errors are planted in a line each, and the tests have to notice them.

``mutant``    one planted error; ``ctokens`` and ``pytree`` find where they can be planted
``sample``    which of them are tried, by a seed, in parts
``results``   what has become of each, as lines of JSON, so that a run can be resumed
``report``    what is printed at the end
``tree``      private copies of the checkout; ``build`` makes modules in them
``covered``   which test runs which line, and how long it takes without a mutant
``steps``     a test as a program that passes or kills; ``inside`` and ``loader`` are such programs
``work``      takes mutants through their steps until all are judged or the time is up
"""
