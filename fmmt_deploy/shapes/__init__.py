"""From the lengths in a data set to the sizes that engines are built for, and the padding each choice wastes."""
