"""The one page frame and the plots that every HTML report uses."""
