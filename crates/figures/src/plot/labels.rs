//! Labels that would overlap are moved apart.

/// The tops of labels whose middles should be as near as possible to these places, in the same order.
/// Each label is given as its middle and its height; the tops are within `from..to` as far as there is room.
pub(super) fn apart(labels: &[(i32, i32)], from: i32, to: i32) -> Vec<i32> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&at| labels[at].0);
    // Groups of labels that touch: their top, their height, and where their top should be on average.
    let mut groups: Vec<Group> = Vec::new();
    for &at in &order {
        let (middle, height) = labels[at];
        let mut group = Group {
            labels: 1,
            wanted: middle - height / 2,
            height,
        };
        while let Some(above) =
            groups.pop_if(|above| above.top(from, to) + above.height > group.top(from, to))
        {
            // Within the joined group the lower labels begin below the upper ones.
            group = Group {
                labels: above.labels + group.labels,
                wanted: above.wanted + group.wanted - group.labels * above.height,
                height: above.height + group.height,
            };
        }
        groups.push(group);
    }
    let mut tops = vec![0; labels.len()];
    let mut order = order.into_iter();
    for group in groups {
        let mut top = group.top(from, to);
        for at in order.by_ref().take(group.labels as usize) {
            tops[at] = top;
            top += labels[at].1;
        }
    }
    tops
}

struct Group {
    labels: i32,
    /// For each label, the top of the group that puts the label where it should be; their sum.
    wanted: i32,
    height: i32,
}

impl Group {
    fn top(&self, from: i32, to: i32) -> i32 {
        (self.wanted / self.labels).min(to - self.height).max(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_room_stay_where_they_are() {
        assert_eq!(apart(&[(100, 20), (50, 20)], 0, 200), [90, 40]);
    }

    #[test]
    fn labels_that_overlap_move_apart_evenly_and_keep_their_order() {
        assert_eq!(apart(&[(100, 20), (100, 20)], 0, 200), [80, 100]);
        assert_eq!(
            apart(&[(104, 20), (100, 20), (98, 20)], 0, 200),
            [110, 90, 70]
        );
    }

    #[test]
    fn labels_stay_within_the_picture() {
        assert_eq!(apart(&[(0, 20), (5, 20)], 0, 200), [0, 20]);
        assert_eq!(apart(&[(199, 20), (200, 40)], 0, 200), [140, 160]);
    }

    #[test]
    fn labels_never_overlap() {
        for seed in 0..200i32 {
            let labels: Vec<(i32, i32)> = (0..7)
                .map(|at| ((seed * 37 + at * at * 53) % 200, 15 + (seed + at) % 3 * 5))
                .collect();
            let tops = apart(&labels, 0, 200);
            let mut spans: Vec<(i32, i32)> = tops
                .iter()
                .zip(&labels)
                .map(|(&top, &(_, height))| (top, top + height))
                .collect();
            spans.sort();
            assert!(spans[0].0 >= 0 && spans[6].1 <= 200, "{spans:?}");
            assert!(
                spans.windows(2).all(|two| two[0].1 <= two[1].0),
                "{spans:?}"
            );
        }
    }
}
