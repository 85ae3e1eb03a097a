"""What operators look at and mend: ``status``, the ``doctor``, odd rows, the tick of beat, encryption keys."""
