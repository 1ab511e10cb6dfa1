# Print which of the later arguments is nearest to the first, by the letters to change, add or drop.
BEGIN {
    for (i = 2; i < ARGC; i++) {
        changes = distance(ARGV[1], ARGV[i])
        if (i == 2 || changes < fewest) { fewest = changes; nearest = ARGV[i] }
    }
    print nearest
}

function distance(a, b,    i, j, before, above) {
    for (j = 0; j <= length(b); j++) row[j] = j
    for (i = 1; i <= length(a); i++) {
        before = row[0]
        row[0] = i
        for (j = 1; j <= length(b); j++) {
            above = row[j]
            row[j] = least(above + 1, row[j - 1] + 1, \
                           before + (substr(a, i, 1) != substr(b, j, 1)))
            before = above
        }
    }
    return row[length(b)]
}

function least(a, b, c) {
    if (b < a) a = b
    return c < a ? c : a
}
