"""The offline search for each question's shortest right answer (§4, A.6)."""
