package container

import (
	"math/rand/v2"
	"regexp"
	"strconv"

	"tare/internal/base/fault"
)

var validName = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fault.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// Words for names that the engine chooses: a quality, and somebody who moved, weighed or sailed.
var (
	qualities = []string{
		"able", "agile", "amber", "ample", "balmy", "blithe", "bold", "brave", "breezy", "bright", "brisk", "buoyant", "calm", "candid", "cheery",
		"civil", "clear", "clever", "cosy", "crisp", "daring", "deft", "droll", "eager", "early", "earnest", "fair", "fleet", "fond", "frank", "gentle",
		"glad", "golden", "graceful", "hale", "handy", "hardy", "hearty", "humble", "jolly", "jovial", "keen", "kind", "light", "limber", "lively",
		"loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud",
		"quick", "quiet", "ready", "robust", "salty", "serene", "sharp", "silver", "sleek", "smooth", "snug", "sober", "spry", "steady", "still",
		"stout", "sturdy", "sunny", "supple", "sure", "swift", "tidy", "tranquil", "trim", "true", "trusty", "upbeat", "valiant", "vivid", "warm",
		"wise", "witty", "zesty",
	}
	surnames = []string{
		"amundsen", "archimedes", "baret", "bering", "bligh", "blackwell", "bowditch", "brunel", "cabot", "cartier", "celsius",
		"champlain", "chichester", "columbus", "cook", "coronelli", "cousteau", "dampier", "drake", "drebbel", "earle", "eratosthenes", "fahrenheit",
		"faraday", "fitzroy", "flinders", "franklin", "frobisher", "galilei", "gama", "graf", "halley", "harrison", "heyerdahl", "hipparchus", "hudson",
		"humboldt", "ibnbattuta", "ibnmajid", "kelvin", "keumalahayati", "lavoisier", "leeghwater", "magellan", "maury", "mclean", "mercator",
		"moitessier", "nansen", "noether", "pascal", "pinto", "polo", "ptolemy", "pytheas", "ross", "sacagawea", "scoresby", "shackleton", "slocum",
		"stevin", "tabarly", "tasman", "torricelli", "tupaia", "vancouver", "vespucci", "watt", "wegener", "worsley", "zhenghe",
	}
)

// generateName returns a fresh name; from the third try on with a digit behind it.
func generateName(try int) string {
	name := qualities[rand.IntN(len(qualities))] + "_" + surnames[rand.IntN(len(surnames))]
	if try > 2 {
		name += strconv.Itoa(rand.IntN(10_000))
	}
	return name
}

// claimName reserves the wanted name, or one that the engine chooses.
func (x *index) claimName(want, id string) (string, error) {
	if want != "" {
		if err := checkName(want); err != nil {
			return "", err
		}
		name := refName(want)
		return name, x.reserve(name, id)
	}
	for try := 0; ; try++ {
		name := generateName(try)
		if err := x.reserve(name, id); err == nil {
			return name, nil
		} else if try > 100 {
			return "", err
		}
	}
}
