"""Tables of RESULTS.md, README.md and the tutorials, from what lies in results/."""
