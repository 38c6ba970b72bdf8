"""Which of the ways that hold is best, why the others lost, and what one could do otherwise."""
